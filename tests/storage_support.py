"""What tests of the record need: a store of either kind, and rows to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from schemas.records import DeploymentRecord, FactRecord, KeyRecord, RequestRecord
from storage.memory import memory_store
from storage.migrate import migrate
from storage.pool import Pool, open_pool
from storage.ports import Store
from storage.store import postgres_store

KEY = KeyRecord(
    key_id="00000000000000aa",
    tenant="acme",
    name="app",
    secret_mac="ab" * 32,
    mac_kid="k1",
    models=("small", "large-*"),
    requests_per_minute=60,
    created_ms=1_000,
)

DEPLOYMENT = DeploymentRecord(
    deployment="d1",
    command_id="c1",
    name="small",
    target="local",
    pool="small",
    state="pending",
    command=("serve", "--port", "1"),
    created_ms=1_000,
    updated_ms=1_000,
)

REQUEST = RequestRecord(
    run="01936b00-0000-7000-8000-000000000001",
    tenant="acme",
    key_id=KEY.key_id,
    route="/v1/chat/completions",
    model="small",
    endpoint="e1",
    stream=True,
    status=200,
    outcome="completed",
    code="",
    prompt_tokens=10,
    completion_tokens=20,
    cached_tokens=5,
    estimated=False,
    cost_micros=7,
    events=21,
    ttft_ms=12,
    duration_ms=90,
    accepted_ms=1_000,
    cleared_ms=1_005,
    claimed_ms=1_006,
    first_ms=1_012,
    ended_ms=1_090,
    attempt=1,
    client_request_id="",
    verdicts=[{"family": "rules", "outcome": "pass"}],
    attempts=[{"endpoint": "e1", "status": 200}],
    finish_reason="stop",
    unverified=("acceptance",),
)


def request(number: int, **changes: Any) -> RequestRecord:
    """An ended run with a number; later numbers ended later."""
    base = replace(REQUEST, run=f"01936b00-0000-7000-8000-{number:012x}", ended_ms=1_000 + number)
    return replace(base, **changes)


def fact(row: RequestRecord, kind: str = "RequestCompleted", attempt: int = 1) -> FactRecord:
    """The fact behind a row."""
    return FactRecord(
        run=row.run, kind=kind, attempt=attempt, tenant=row.tenant, by="router", at_ms=row.ended_ms, detail={"code": ""}
    )


async def migrated_pool(dsn: str, **options: Any) -> Pool:
    """A pool on a database that was just migrated."""
    await migrate(dsn)
    return await open_pool(dsn, **options)


@asynccontextmanager
async def a_store(dsn: str | None) -> AsyncIterator[Store]:
    """A fresh store: in memory, or in the empty database `dsn`."""
    if dsn is None:
        yield memory_store()
        return
    pool = await migrated_pool(dsn)
    yield postgres_store(pool)
    await pool.close()
