"""Forgets consumers that died with empty hands: Redis remembers each of them for ever.

Those that still hold something are left to the claimers, which take it over first.
"""

from __future__ import annotations

from collections.abc import Collection

from runtime.inspect import Inspector
from runtime.scripts import Scripts

DEAD_MS = 3_600_000  # a living one asks for work every few seconds


async def forget_dead(eyes: Inspector, scripts: Scripts, alive: Collection[str], dead_ms: int = DEAD_MS) -> int:
    """How many were forgotten: not alive, silent for dead_ms, nothing pending. Unavailable."""
    gone = 0
    for seen in await eyes.consumers():
        if seen.consumer not in alive and not seen.pending and seen.idle_ms >= dead_ms:
            gone += await scripts.retire(seen.stream, seen.group, seen.consumer)
    return gone
