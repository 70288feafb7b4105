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
    Repeat,
    Resume,
    Schedule,
    Step,
    Trap,
)
from tests.simulation.world import House

_STREAM = Publish(0, 0, True, "good", 8, 50, "")
_SLOW = Publish(0, 0, True, "slow", 3, 0, "")
_LIMITED = Publish(0, 1, True, "good", 8, 50, "")


_KEYED = Publish(0, 0, True, "good", 8, 50, "", once=1)
_SHARED = Publish(1, 0, True, "good", 4, 50, "", once=2)
_LONG = Publish(0, 0, True, "good", 20, 500, "", wish="grace:1")
_LEAVER = Publish(0, 0, True, "good", 8, 500, "")
_LEFT = Publish(0, 0, True, "good", 20, 500, "", once=1)
_BROKEN = Publish(0, 0, True, "cut,good", 8, 50, "")


_QUICK = Publish(0, 0, True, "good", 8, 0, "")


def _of(*steps: Step, policy: str = "cancel", continues: str = "", workers: int = 2) -> Schedule:
    return Schedule(House(1, policy, continues, workers), steps)


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
    "a checker dies before its verdict is stored": _of(Trap(2, "verdicts", 1, "crash", False), _STREAM, Advance(500)),
    "a checker dies after its verdict was stored": _of(Trap(3, "verdicts", 2, "crash", True), _STREAM, Advance(500)),
    "a worker never hears whether it has the run that it has begun": _of(
        *(_STREAM, Advance(600), Trap(2, "verdicts", 1, "lose_reply", True), _QUICK, Advance(2000)), workers=1
    ),
    "a worker dies with a run begun and not claimed": _of(
        *(_STREAM, Advance(600), Trap(2, "verdicts", 1, "crash", True), _QUICK, Advance(9000)), workers=1
    ),
    "a worker sleeps with a run begun and not claimed": _of(
        *(_STREAM, Advance(600), Trap(2, "verdicts", 1, "pause", True), _QUICK, Advance(6000), GoOn(2)), workers=1
    ),
    "a client leaves in mid-answer": _of(_LEAVER, Advance(300), Leave(0), Advance(4000)),
    "a grace ends though the door that counted it died": _of(
        Advance(9000), _LONG, Advance(600), Leave(0), Advance(50), Crash(0), Advance(5000), policy="finish"
    ),
    "a repeat comes while the run goes on, and when it has ended": _of(
        *(_KEYED, Repeat(1, 0), Advance(200), Crash(0), Repeat(1, 0), Advance(2000), Repeat(1, 0), Advance(100))
    ),
    "another request comes under a key that is taken": _of(_SHARED, Advance(20), _SHARED, Advance(2000), _SHARED),
    "a repeat comes when Redis has forgotten everything": _of(
        *(_KEYED, Advance(4000), Failover(10_000), Advance(4000), Repeat(1, 0), Repeat(0, 0), Advance(2000))
    ),
    "a repeat of a run that was left to finish hears nothing of its acceptance": _of(
        *(_LEFT, Advance(1100), Leave(0), Advance(5), Repeat(0, 0), Outage(2100), Advance(9000)), policy="finish"
    ),
    "an engine breaks off, and another goes on": _of(_BROKEN, Advance(2000), continues="e1 e2 e3"),
    "a router dies in an answer that another goes on with": _of(
        *(_STREAM, Advance(350), Crash(2), Advance(4500), Crash(3), Advance(9000)), continues="e1 e2 e3"
    ),
    "the record dies with rows in hand": _of(_STREAM, Advance(480), Crash(2), Advance(20), Crash(3)),
}
