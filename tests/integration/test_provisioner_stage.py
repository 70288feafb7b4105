"""Room 5 as deployed: commands through the real stream and engine, states in PostgreSQL, the catalog in Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from base.clock import SystemClock
from base.credentials import open_credential
from base.crypto import CryptoError, KeyRing, Sealer
from base.ids import SystemRandom
from console.desks import ModelDesk
from console.entries import ModelEntry
from providers.httptools_transport import HttptoolsTransport
from runtime.app import Context, RedisSettings, Workers
from runtime.topology import apply, load
from schemas.records import DeploymentRecord
from state.catalog import RedisCatalog
from state.inflight import RedisInflight
from storage.ports import Store
from storage.store import postgres_store
from tests.console_support import deploy_model, engine_command, ring, until
from tests.storage_support import migrated_pool
from workers.provisioner.app import Room, build
from workers.provisioner.settings import ProvisionerSettings

FAST = ProvisionerSettings(interval_s=0.2, starting_interval_s=0.05, drain_s=0)


@dataclass
class Process:
    """One provisioner process and, beside it, the console's desk."""

    context: Context
    store: Store
    catalog: RedisCatalog
    room: Room
    desk: ModelDesk

    async def record(self, deployment: str, state: str) -> DeploymentRecord:
        async def there() -> DeploymentRecord | None:
            found = await self.store.deployments.find(deployment)
            return found if found is not None and found.state == state else None

        found: DeploymentRecord = await until(there)
        return found

    async def pending(self) -> int:
        """Commands that are not acknowledged."""
        summary = await self.context.redis.execute("XPENDING", "commands", "provisioner")
        return int(summary[0])


@asynccontextmanager
async def process(redis: str, dsn: str, data: Path, keys: KeyRing, name: str = "p1") -> AsyncIterator[Process]:
    clock, chance, topology = SystemClock(), SystemRandom(), load()
    context = await Context.open(RedisSettings(url=redis, allow_no_aof=True), name, clock, chance, keys, topology, 1)
    await apply(topology, 1, context.redis)
    pool = await migrated_pool(dsn)
    store, transport = postgres_store(pool), HttptoolsTransport(clock)
    catalog = RedisCatalog(context.redis, clock, fresh_s=0.0)
    room = build(context, store.deployments, catalog, RedisInflight(context.redis), transport, data, FAST)
    workers = Workers(context=context, stages=room.stages, grace_s=2.0)
    desk = ModelDesk(
        deployments=store.deployments,
        publisher=context.publisher("console"),
        ring=keys,
        sealer=Sealer(keys, chance),
    )
    await workers.start()
    await room.start()
    try:
        yield Process(context, store, catalog, room, desk)
    finally:
        await room.stop()
        await workers.stop()
        await transport.close()
        await pool.close()
        await context.close()


@pytest.fixture
async def one(valkey: str, postgres: str, tmp_path: Path) -> AsyncIterator[Process]:
    async with process(valkey, postgres, tmp_path, ring()) as made:
        yield made
        for record in await made.store.deployments.list():
            await made.desk.stop(record.deployment)
            await made.record(record.deployment, "stopped")


async def test_an_entry_becomes_a_served_model_through_the_pipeline(one: Process) -> None:
    await one.desk.add(ModelEntry(name="small", command=engine_command()))
    record = await one.record("small", "ready")
    [endpoint] = await one.catalog.endpoints("small")
    assert (endpoint.up, endpoint.upstream_model, endpoint.private) == (True, "small", True)
    assert record.pid > 0
    assert await one.pending() == 0


async def test_a_published_command_twice_is_one_deployment_and_one_engine(one: Process) -> None:
    command = deploy_model("c1", target="local", url="", command=engine_command())
    publisher = one.context.publisher("console")
    for _ in range(2):
        await publisher.publish("commands", command, id=command.command_id)
    record = await one.record("small", "ready")

    async def all_acknowledged() -> bool:
        return await one.pending() == 0

    await until(all_acknowledged)
    assert [row.deployment for row in await one.store.deployments.list()] == ["small"]
    assert (await one.record("small", "ready")).pid == record.pid


async def test_a_second_process_finds_what_the_first_one_started(valkey: str, postgres: str, tmp_path: Path) -> None:
    keys = ring()
    async with process(valkey, postgres, tmp_path, keys) as first:
        await first.desk.add(ModelEntry(name="small", command=engine_command()))
        pid = (await first.record("small", "ready")).pid
    async with process(valkey, postgres, tmp_path, keys, "p2") as second:
        assert (await second.record("small", "ready")).pid == pid
        await second.desk.stop("small")
        await second.record("small", "stopped")
        assert await second.catalog.models() == ()


async def test_a_credential_lies_sealed_in_every_store_and_opens_for_its_deployment_only(one: Process) -> None:
    entry = ModelEntry.model_validate({"name": "small", "url": "http://127.0.0.1:9/v1", "api_key": "canary-credential"})
    await one.desk.add(entry)
    record = await one.record("small", "starting")
    rows = await one.context.redis.execute("XRANGE", "commands", "-", "+")
    assert b"canary" not in b"".join(part for _, fields in rows for part in fields)
    assert "canary" not in repr(record)
    sealer = Sealer(one.context.ring, SystemRandom())
    assert open_credential(sealer, "small", record.credential) == "canary-credential"
    with pytest.raises(CryptoError, match="do not open"):
        open_credential(sealer, "other", record.credential)
