"""A failing schedule without the steps that do not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.steps import Schedule


def shrunk(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The schedule with as few steps as it takes to fail: halves, quarters ... and single steps are left out in turn,
    until nothing more can be."""
    size = max(1, len(schedule.steps) // 2)
    while True:
        found = _without(schedule, size, fails)
        if found is not None:
            schedule = found
        elif size == 1:
            return schedule
        else:
            size //= 2


def _without(schedule: Schedule, size: int, fails: Callable[[Schedule], bool]) -> Schedule | None:
    """The first shorter one that still fails."""
    for start in range(0, len(schedule.steps), size):
        shorter = replace(schedule, steps=schedule.steps[:start] + schedule.steps[start + size :])
        if fails(shorter):
            return shorter
    return None
