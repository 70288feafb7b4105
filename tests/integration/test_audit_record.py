"""The audit on a real record: killed between commit and acknowledgement, PostgreSQL away, and a canary."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from base.clock import SystemClock
from base.ids import SystemRandom
from console.embedded.postgres import EmbeddedPostgres
from runtime.client import Address, Client
from runtime.consume import Engine
from runtime.group_spec import Spec
from runtime.groups import RedisGroups, Row
from runtime.scripts import RedisScripts
from schemas.outcomes import Decided, Delivery, Done
from storage.access import OPERATOR, tenant
from storage.pool import Pool
from storage.ports import RequestFilter
from storage.requests import PostgresRequests
from tests.audit_support import CANARY, PUBLISHERS, VERIFIER, End, blocked, run_id, verdicts
from tests.storage_support import migrated_pool
from workers.audit.handlers import Audit

STREAM = "{0}:facts"
CLOCK, CHANCE = SystemClock(), SystemRandom()


@pytest.fixture
async def pool(postgres: str) -> AsyncIterator[Pool]:
    pool = await migrated_pool(postgres)
    yield pool
    await pool.close()


def audit(pool: Pool) -> Audit:
    return Audit(VERIFIER, PUBLISHERS, PostgresRequests(pool), (), CLOCK)


async def test_a_process_killed_between_commit_and_acknowledgement_leaves_one_row(pool: Pool) -> None:
    batch = [End(run=run_id(number)).delivery() for number in range(8)]
    await audit(pool).handle(batch)  # committed; then the process dies, and another gets the same entries
    assert list(await audit(pool).handle(batch[:5])) == [Done()] * 5
    page = await PostgresRequests(pool).page(OPERATOR, RequestFilter())
    assert len(page.rows) == 8
    assert len(await PostgresRequests(pool).facts(OPERATOR, run_id(0))) == 1


async def test_two_replicas_with_the_same_facts_write_one_row_each_and_never_deadlock(pool: Pool) -> None:
    batch = [End(run=run_id(number)).delivery() for number in range(64)]
    orders = (batch, batch[::-1], batch[32:] + batch[:32])
    await asyncio.gather(*(audit(pool).handle(order) for order in orders))
    assert len((await PostgresRequests(pool).page(OPERATOR, RequestFilter(), limit=200)).rows) == 64


async def test_a_tenant_reads_its_own_runs_only(pool: Pool) -> None:
    mine, theirs = End(run=run_id(1)), End(run=run_id(2), verdicts=verdicts(run_id(2), "zeta"))
    await audit(pool).handle([mine.delivery(), theirs.delivery()])
    requests = PostgresRequests(pool)
    assert [row.run for row in (await requests.page(tenant("zeta"), RequestFilter())).rows] == [run_id(2)]
    assert await requests.find(tenant("acme"), run_id(2)) is None


async def test_no_text_of_anybody_is_in_the_database(pool: Pool, postgres: str) -> None:
    refused = End(run=run_id(1), fact=blocked(run_id(1)), by="rules")
    await audit(pool).handle([refused.delivery(), End(run=run_id(2)).delivery()])
    connection = await asyncpg.connect(postgres)
    tables = await connection.fetch(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    for table in tables:
        text = await connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table['name']} t")
        assert CANARY not in (text or "")
    await connection.close()


class Letters:
    """Counts dead letters."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def decided(self, pairs: Sequence[tuple[Delivery, Decided]]) -> None:
        raise AssertionError("the audit decides nothing")

    async def dead(self, row: Row, spec: Spec, consumer: str, starts: int, reason: str) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def an_engine(url: str, pool: Pool, letters: Letters) -> AsyncIterator[tuple[Client, Engine]]:
    """Group `audit` on a server, as a process of the house runs it."""
    redis, reader = (Client(Address.parse(url), CLOCK, CHANCE, name=name) for name in ("writer", "reader"))
    await redis.connect()
    await reader.connect()
    spec = Spec(stream="facts", group="audit", publishers=PUBLISHERS, batch=16, concurrency=256, idle_ms=900)
    scripts = RedisScripts(redis, 60_000)
    groups = RedisGroups(redis, reader)
    engine = Engine(spec, lambda: [STREAM], groups, scripts, letters, audit(pool).handle, "c1", VERIFIER, CLOCK, CHANCE)
    await engine.start()
    yield redis, engine
    await engine.stop(1.0)
    await reader.close()
    await redis.close()


async def _until_written(requests: PostgresRequests, count: int) -> int:
    """Rows in the record, once there are `count` of them or 20 seconds have passed."""
    for _ in range(200):
        rows = (await requests.page(OPERATOR, RequestFilter(), limit=1000)).rows
        if len(rows) >= count:
            return len(rows)
        await CLOCK.sleep(0.1)
    return len(rows)


async def test_facts_wait_out_an_outage_of_postgresql_and_none_becomes_a_dead_letter(
    valkey: str, spare_postgres: EmbeddedPostgres
) -> None:
    pool = await migrated_pool(spare_postgres.dsn, connect_s=0.3, statement_s=0.3, acquire_s=0.6)
    letters = Letters()
    async with an_engine(valkey, pool, letters) as (redis, engine):
        await _add(redis, range(20))
        assert await _until_written(PostgresRequests(pool), 20) == 20
        os.kill(spare_postgres.pid, signal.SIGSTOP)
        stopped = _children(spare_postgres.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await _add(redis, range(20, 60))
            await CLOCK.sleep(5.0)  # far beyond max_starts idle limits
            assert engine.in_hand == 40
        finally:
            for pid in (spare_postgres.pid, *stopped):
                os.kill(pid, signal.SIGCONT)
        assert await _until_written(PostgresRequests(pool), 60) == 60
        assert letters.reasons == []
        assert await _until_acknowledged(redis) == 0
    await pool.close()


async def _until_acknowledged(redis: Client) -> int:
    for _ in range(50):
        pending = int((await redis.execute("XPENDING", STREAM, "audit"))[0])
        if not pending:
            break
        await CLOCK.sleep(0.1)
    return pending


async def _add(redis: Client, numbers: range) -> None:
    for number in numbers:
        flat = [part for pair in End(run=run_id(number)).fields().items() for part in pair]
        await redis.execute("XADD", STREAM, "*", *flat)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
