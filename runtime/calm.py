"""Whether the silence of a consumer means anything: not within one idle limit of a restart, a failover or an outage.

A promoted replica has been up for long and holds what the old primary last told it, so its uptime says nothing: what
counts is how long this very server is known to be in charge (runtime/lua/tenure.lua), and that our own connection held.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from base.clock import Clock
from runtime.names import stream_prefix
from runtime.scripts import Scripts


class Calm:
    """After an outage nothing is taken over until one full idle limit has passed: live owners beat first."""

    def __init__(self, losses: Callable[[], Awaitable[int]], scripts: Scripts, clock: Clock, idle_ms: int) -> None:
        """losses: how many connections to the server were lost so far; Unavailable."""
        self._count, self._scripts = losses, scripts
        self._clock, self._idle_s = clock, idle_ms / 1000
        self._losses: int | None = None  # as last seen
        self._not_before = 0.0

    async def watch(self, stream: str) -> None:
        """At each look: a new connection may lead to a new server, whose time begins once it is asked. Unavailable."""
        losses = await self._count()
        if losses == self._losses:
            return
        if self._losses is not None:
            self._not_before = self._clock.monotonic() + self._idle_s
        await self._tenure(stream)
        self._losses = losses

    async def reached(self, stream: str) -> bool:
        """Whether entries of silent consumers of this stream may be taken over now. Unavailable."""
        await self.watch(stream)
        return await self._tenure(stream) >= self._idle_s and self._clock.monotonic() >= self._not_before

    async def _tenure(self, stream: str) -> float:
        return await self._scripts.tenure(stream_prefix(stream).rstrip(":"))
