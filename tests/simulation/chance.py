"""Seeded time and chance of a simulated process (base.clock, base.ids)."""

from __future__ import annotations

import asyncio
import random

EPOCH_MS = 1_800_000_000_000  # when every simulation begins


class SimRandom:
    """base.ids.Random from a seed; the same text gives the same numbers in every process."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._next = self._random.random

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._next()


class SimClock:
    """base.clock.Clock of one process over the virtual loop. skew_ms: how far its wall clock is off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.skew_ms = 0

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + self.skew_ms

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ServerClock(SimClock):
    """The server's TIME. A turn of the twin costs nothing here: its calls are single steps. replayed: the time while
    the past is played again."""

    replayed: int | None = None

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) if self.replayed is None else self.replayed

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)
