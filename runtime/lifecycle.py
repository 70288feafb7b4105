"""The stop sequence, written down. What was opened last is closed first, each step with its own time.

    1 readiness says no (the caller sets it), so that nobody sends new work here
    2 the door finishes or cuts its streams; the stages read nothing new, finish what is in hand, give back the rest
      untried, and forget their consumer when it holds nothing (runtime/consume.py Engine.stop)
    3 timers, sweeper and control stop: they only look
    4 connections close last, since every step before needs them to acknowledge
A step that does not end in its time is left behind: whatever it held is pending and will be taken over by others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from base import logs
from base.clock import Clock

log = logs.room("runtime")


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
            try:
                await asyncio.wait_for(step(), seconds)
            except TimeoutError:
                log.warning("left behind at the stop", step=name, seconds=seconds)
            except Exception:
                log.exception("a step of the stop failed", step=name)
