"""Kept answers in PostgreSQL. Implements ports.Archive. Frames come sealed and stay so."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import ArchiveRecord
from storage.access import OPERATOR
from storage.access import tenant as only
from storage.pool import Pool
from storage.rows import Table

KEPT = Table(ArchiveRecord)


class PostgresArchive:
    """Table archives."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def keep(self, records: Sequence[ArchiveRecord], now_ms: int) -> frozenset[str]:
        new = set()
        async with self._pool.transaction(OPERATOR) as work:
            for record in records:
                await work.run("drop_expired_once", record.once, now_ms)
                if await work.row("keep_answer", *KEPT.values(record)):
                    new.add(record.run)
        return frozenset(new)

    async def find(self, tenant: str, run: str, now_ms: int) -> ArchiveRecord | None:
        async with self._pool.transaction(only(tenant)) as work:
            row = await work.row("find_kept", run, now_ms)
        return KEPT.build(row) if row else None

    async def find_once(self, tenant: str, names: Sequence[str], now_ms: int) -> ArchiveRecord | None:
        async with self._pool.transaction(only(tenant)) as work:
            row = await work.row("find_kept_once", list(names), now_ms)
        return KEPT.build(row) if row else None

    async def forget(self, tenant: str, run: str) -> bool:
        async with self._pool.transaction(only(tenant)) as work:
            return await work.row("forget_kept", run) is not None

    async def spent(self, runs: Sequence[str]) -> frozenset[str]:
        async with self._pool.transaction(OPERATOR) as work:
            return frozenset(row["run"] for row in await work.rows("spent_runs", list(runs)))

    async def sweep(self, now_ms: int) -> int:
        async with self._pool.transaction(OPERATOR) as work:
            return len(await work.rows("forget_expired", now_ms))
