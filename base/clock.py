"""Time enters the house here and nowhere else, so that a simulation can bend it.

`now_ms` is wall time for records shown to people; `monotonic` measures spans inside one process.
Deadlines that two processes must agree on never use either: they come from the Redis server's TIME.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the house knows of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Give the loop away for `seconds` (>= 0)."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)  # asked several times a request and once a token

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
