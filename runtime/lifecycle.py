"""The stop sequence, written down. What was opened last is closed first, each step with its own time.

    1 readiness says no (the caller sets it), here and to the others, so that nobody sends new work
    2 the door finishes or cuts its streams, while everything that they need still runs
    3 the sweeper and the timers of the stages: they only look
    4 the stages read nothing new, finish what is in hand, give back the rest untried, and forget their consumer when it
      holds nothing (runtime/consume.py Engine.stop)
    5 what the stages used: scanners, upstream connections, control
    6 the process leaves the list of processes, and its health port, where all this could be watched, closes
    7 connections close last, since every step before needs them to acknowledge
A step that does not end in its time is left behind: whatever it held is pending and will be taken over by others.
Each step is a line of the log, `stop: <name>`; ORDER is what they must keep to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from base import logs
from base.clock import Clock

log = logs.room("runtime")

STOP = "stop: "
#: Steps whose place matters; a process has those of its rooms. The others stand between them as they were opened.
ORDER = ("door", "sweeper", "stages", "control", "presence", "health", "postgres", "connections")


class Stops:
    """Steps to undo, newest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: list[tuple[str, Callable[[], Awaitable[None]], float]] = []

    def add(self, name: str, step: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Run `step` at the stop, for at most `seconds`."""
        self._steps.append((name, step, seconds))

    async def run(self) -> None:
        """All steps; a failing one does not keep the others from running."""
        while self._steps:
            name, step, seconds = self._steps.pop()
            begun = self._clock.monotonic()
            try:
                await asyncio.wait_for(step(), seconds)
                log.info(STOP + name, took_s=round(self._clock.monotonic() - begun, 3))
            except TimeoutError:
                log.warning("left behind at the stop", step=name, seconds=seconds)
            except Exception:
                log.exception("a step of the stop failed", step=name)
