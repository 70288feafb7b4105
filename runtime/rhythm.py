"""When the loops of one process look around: together, so that their looks share a wake-up, a write and an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from base.clock import Clock
from base.ids import Random

BEAT_S = 0.15
_SPREAD_S = 60.0  # where in time the first beat of a process may lie
_EARLY = 0.1  # of a period; a timer may ring a little before its time


@dataclass(slots=True)
class Rhythm:
    """Of one process. Another has beats of its own, so that not all ask the server at the same moment."""

    clock: Clock
    chance: Random
    _phase: float = field(init=False)
    _sleeps: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._phase = self.chance.uniform(0.0, _SPREAD_S)

    async def rest(self, seconds: float) -> None:
        """Until the next moment that a loop of this period shares with others; a period shorter than a beat is its own.

        The period is rounded down to whole beats, so looks come no rarer than every `seconds`."""
        beats = int(seconds / BEAT_S + 1e-9)
        if beats == 0:
            await self.clock.sleep(seconds)
            return
        now = (self.clock.monotonic() - self._phase) / BEAT_S
        due = (int(now / beats + _EARLY) + 1) * beats
        await asyncio.shield(self._sleep_until(due, (due - now) * BEAT_S))

    def close(self) -> None:
        """Nobody rests here any more."""
        for sleep in self._sleeps.values():
            sleep.cancel()

    def _sleep_until(self, due: int, seconds: float) -> asyncio.Task[None]:
        sleep = self._sleeps.get(due)
        if sleep is None:
            sleep = self._sleeps[due] = asyncio.create_task(self.clock.sleep(seconds), name="rhythm")
            sleep.add_done_callback(lambda _: self._sleeps.pop(due, None))
        return sleep
