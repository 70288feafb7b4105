"""Slow readers: a client that takes nothing for `limit_s` while there is something to send is cut off.

Sending waits for the client, so a slow reader costs one frame and one socket buffer; this watch frees them. It looks
every few seconds and keeps its notes to itself, so the hot path pays two attribute writes per event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from base import metrics
from base.clock import Clock
from ingress.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Mark:
    """How far an exchange had come, and since when."""

    sends: int
    unsent: int
    since: float


def judge(mark: Mark | None, sends: int, unsent: int, now: float) -> Mark:
    """The mark to keep: the old one while nothing moved, else a new one."""
    if mark is not None and mark.sends == sends and mark.unsent == unsent:
        return mark
    return Mark(sends, unsent, now)


@dataclass(slots=True)
class Stalls:
    """The exchanges of one process that watch a run."""

    clock: Clock
    limit_s: float
    open: set[Exchange] = field(default_factory=set)
    _marks: dict[Exchange, Mark] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks at all of them, five times per limit, for as long as the context is open."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await self.clock.sleep(self.limit_s / 5)
            metrics.gauge("headrace_watchers", len(self.open))
            self.look()

    def look(self) -> None:
        """Cut whoever has not moved for the limit; forget whoever is done."""
        now = self.clock.monotonic()
        marks: dict[Exchange, Mark] = {}
        for exchange in self.open:
            if exchange.sending and exchange.wire is not None:
                unsent = exchange.wire.get_write_buffer_size()
                mark = marks[exchange] = judge(self._marks.get(exchange), exchange.sends, unsent, now)
                if now - mark.since >= self.limit_s:
                    exchange.wire.abort()
                    metrics.inc("headrace_slow_readers_total", action="cut")
        self._marks = marks
