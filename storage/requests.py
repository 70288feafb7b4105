"""The record of ended runs in PostgreSQL. Implements ports.Requests.

A batch is one transaction: COPY into staging tables of the connection, then INSERT ... ON CONFLICT DO NOTHING. Killed
before the commit nothing is there, killed after it the same batch changes nothing: either way the facts may come again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from schemas.records import FactRecord, RequestRecord
from storage.access import OPERATOR, Access
from storage.pool import Pool
from storage.ports import Page, Place, RequestFilter, UsageSum
from storage.rows import Row, Table

FACTS = Table(FactRecord)
REQUESTS = Table(RequestRecord)


class PostgresRequests:
    """Tables requests and facts."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("stage_facts")
            await work.run("stage_requests")
            await work.copy("staged_facts", FACTS.columns, map(FACTS.values, facts))
            await work.copy("staged_requests", REQUESTS.columns, map(REQUESTS.values, requests))
            await work.run("merge_facts")
            return frozenset(row["run"] for row in await work.rows("merge_requests"))

    async def find(self, access: Access, run: str) -> RequestRecord | None:
        async with self._pool.transaction(access) as work:
            row = await work.row("find_request", run)
        return REQUESTS.build(row) if row else None

    async def facts(self, access: Access, run: str) -> Sequence[FactRecord]:
        async with self._pool.transaction(access) as work:
            return [FACTS.build(row) for row in await work.rows("list_facts", run)]

    async def page(self, access: Access, wanted: RequestFilter, *, after: Place | None = None, limit: int = 50) -> Page:
        # Row-level security hides other tenants' rows; naming the tenant as well lets the index find its rows.
        tenant = wanted.tenant if access.operator or wanted.tenant is not None else access.only
        place = (after.ended_ms, after.run) if after else (None, None)
        span = (wanted.since_ms, wanted.until_ms)
        what = (tenant, wanted.key_id, wanted.model, wanted.outcome, wanted.status)
        async with self._pool.transaction(access) as work:
            await work.run("plan_for_values")
            rows = await work.rows("list_requests", *what, *span, *place, limit + 1)
        return cut([REQUESTS.build(row) for row in rows], limit)

    async def usage(
        self, access: Access, by: Literal["tenant", "key", "model"], since_ms: int, until_ms: int
    ) -> Sequence[UsageSum]:
        async with self._pool.transaction(access) as work:
            await work.run("plan_for_values")
            rows = await work.rows("sum_usage", access.only, since_ms, until_ms, by)
        return [_usage(row) for row in rows]


def cut(rows: Sequence[RequestRecord], limit: int) -> Page:
    """A page of `limit` from one row more than that: the extra one says that there is a next page."""
    if len(rows) <= limit:
        return Page(rows, None)
    last = rows[limit - 1]
    return Page(rows[:limit], Place(last.ended_ms, last.run))


def _usage(row: Row) -> UsageSum:
    """Sums of bigint come as Decimal."""
    return UsageSum(
        name=row["name"],
        requests=row["requests"],
        prompt_tokens=int(row["prompt_tokens"]),
        completion_tokens=int(row["completion_tokens"]),
        cached_tokens=int(row["cached_tokens"]),
        cost_micros=int(row["cost_micros"]),
    )
