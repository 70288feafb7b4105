"""Plays a schedule from the first step to quiet, and judges what is left."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation import settings
from tests.simulation.invariants import broken, unsettled
from tests.simulation.steps import Schedule
from tests.simulation.world import Bugs, World

_LOOK_S = 0.25
#: After the last fault: longer than any deadline, a sweep, and the taking over of an entry three times.
_PATIENCE_S = settings.DEADLINE_S + 25.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a play came to. violations: the invariants it broke, in words; none when all is well."""

    violations: tuple[str, ...]
    counts: Counter[str]
    digest: str


def play(schedule: Schedule, bugs: Bugs | None = None, tell: Callable[[str], None] | None = None) -> Outcome:
    """One schedule in a world of its own."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    world = World(schedule.house, bugs or Bugs(), tell)
    try:
        for step in schedule.steps:
            world.tell("hand", repr(step))
            step.play(world)
        quiet(world)
        world.count()
        return Outcome(tuple(broken(world)), world.happened.counts, world.digest)
    finally:
        world.close()
        gc.enable()
        logging.disable(logging.NOTSET)


def quiet(world: World) -> None:
    """Every process and server is back, and time goes on until nothing is left to do, or for as long as it may take."""
    world.quiet_at = world.loop.time()
    for process in world.processes:
        process.wire.traps.clear()
        world.go_on(process)
    until = world.loop.time() + _PATIENCE_S
    while world.loop.time() < until:
        world.advance(_LOOK_S)
        if not (world.redis.up and world.postgres.up):
            world.quiet_at = world.loop.time()
        elif not unsettled(world):
            return
