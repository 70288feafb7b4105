"""One transaction for all that arrives within a moment: a commit costs milliseconds, a row of it microseconds.

The engine hands over facts as soon as they come, a few at a time, many hands at once. Their rows are gathered for
`linger_s` and written together; each hand hears when its own rows are committed. One transaction is under way at a
time, what comes meanwhile goes into the next. Rows that PostgreSQL refuses must not drag others down: then each hand's
rows are written alone, and only the guilty one hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from base.clock import Clock
from schemas.errors import Unavailable
from schemas.records import FactRecord, RequestRecord
from workers.audit.ports import Record


@dataclass(slots=True)
class _Part:
    """One hand's rows, and where it waits."""

    facts: Sequence[FactRecord]
    requests: Sequence[RequestRecord]
    answer: asyncio.Future[frozenset[str]]


class Batches:
    """A Record in front of another."""

    def __init__(self, record: Record, clock: Clock, linger_s: float) -> None:
        self._record, self._clock, self._linger_s = record, clock, linger_s
        self._waiting: list[_Part] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        """See ports.Record; returns or raises once these rows' transaction has ended."""
        part = _Part(facts, requests, asyncio.get_running_loop().create_future())
        self._waiting.append(part)
        if self._writer is None:
            self._writer = asyncio.create_task(self._run(), name="audit:writer")
        return await part.answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._clock.sleep(self._linger_s)
                parts, self._waiting = self._waiting, []
                await self._write(parts)
        finally:
            self._writer = None

    async def _write(self, parts: Sequence[_Part]) -> None:
        facts = [fact for part in parts for fact in part.facts]
        requests = [request for part in parts for request in part.requests]
        try:
            new = await self._record.write(facts, requests)
        except Exception as error:
            if len(parts) > 1 and not isinstance(error, Unavailable):
                for part in parts:
                    await self._write([part])
                return
            _fail(parts, error)
        else:
            for part in parts:
                if not part.answer.done():
                    part.answer.set_result(new.intersection(request.run for request in part.requests))


def _fail(parts: Sequence[_Part], error: Exception) -> None:
    """Each hand that still waits hears the error."""
    for part in parts:
        if not part.answer.done():
            part.answer.set_exception(error)
