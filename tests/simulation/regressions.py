"""Schedules that broke a promise once, or that only one fence keeps from it; shrunk and written out."""

from __future__ import annotations

from tests.simulation.steps import (
    Advance,
    Crash,
    Duplicate,
    Failover,
    GoOn,
    Leave,
    Outage,
    Pause,
    Publish,
    Resume,
    Schedule,
    Step,
    Trap,
)
from tests.simulation.world import House

_STREAM = Publish(0, 0, True, "good", 8, 50, "")
_SLOW = Publish(0, 0, True, "slow", 3, 0, "")
_LIMITED = Publish(0, 1, True, "good", 8, 50, "")


def _of(*steps: Step) -> Schedule:
    return Schedule(House(1, "cancel"), steps)


REGRESSIONS = {
    "a failover gives an epoch again while a client watches": _of(_STREAM, Advance(150), Failover(6), Advance(2000)),
    "a refused run is delivered again when there is room": _of(
        *(_LIMITED, _LIMITED, Advance(20), _LIMITED, Advance(620), Duplicate("requests"), Advance(200))
    ),
    "a reader leaves while the server does not answer": _of(
        _STREAM, Advance(100), Resume(0, 1, 0), Advance(20), Outage(3000), Leave(1), Advance(100)
    ),
    "a stale owner wakes before the new one has spoken": _of(_SLOW, Advance(500), Pause(2), Advance(4500), GoOn(2)),
    "the same, with the other worker": _of(_SLOW, Advance(500), Pause(3), Advance(4500), GoOn(3)),
    "a checker dies before its verdict is stored": _of(Trap(2, "verdict", 1, "crash", False), _STREAM, Advance(500)),
    "a checker dies after its verdict was stored": _of(Trap(3, "verdict", 2, "crash", True), _STREAM, Advance(500)),
    "the record dies with rows in hand": _of(_STREAM, Advance(480), Crash(2), Advance(20), Crash(3)),
}
