"""Waiting for what shows itself only from outside: looked for again and again, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

LOOK_S = 0.05


async def until(what: Callable[[], object], words: str, seconds: float = 60.0) -> float:
    """Wait for a true value of `what()`; seconds it took. TimeoutError names what did not come."""
    begun = monotonic()
    while not what():
        if monotonic() > begun + seconds:
            raise TimeoutError(f"not within {seconds:.0f} s: {words}")
        await asyncio.sleep(LOOK_S)
    return monotonic() - begun
