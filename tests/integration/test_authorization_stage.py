"""Room 1 on a real server, under the real engine: accepted runs in, verdicts out, limits and revocations shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from msgspec import structs

from base.clock import SystemClock
from base.crypto import Verifier
from base.ids import SystemRandom
from runtime.app import Context, RedisSettings, Workers
from runtime.control import Control
from runtime.door import Bounds, StreamDoor
from runtime.topology import apply, load
from schemas.errors import Unavailable
from schemas.events import KeyChanged
from schemas.frames import decode_failure
from schemas.ports import NewRun, RunStatus
from schemas.records import KeyRecord
from schemas.verdicts import Verdict, open_verdict
from state.shared import Shared
from tests.authorization_support import MODEL, RING, accepted, key
from workers.authorization.app import build
from workers.authorization.settings import AuthorizationSettings

PARTITIONS = 4


@dataclass
class Record:
    """PostgreSQL's side of the keys."""

    rows: dict[str, KeyRecord] = field(default_factory=dict)
    away: bool = False

    async def load(self, key_id: str) -> KeyRecord | None:
        if self.away:
            raise Unavailable("PostgreSQL is away")
        return self.rows.get(key_id)


@dataclass
class Replica:
    """One process with the authorization stage and its ears on the control stream."""

    context: Context
    shared: Shared
    workers: Workers
    control: Control
    door: StreamDoor

    async def status(self, run: str) -> RunStatus:
        found = await self.door.status(run)
        assert found is not None
        return found

    async def send(self, number: int = 1, *, model: str = "small") -> str:
        """Accept a run of key `number` that authorization alone judges."""
        run = self.door.mint()
        event = structs.replace(accepted(run, number, model=model), families=("authorization",))
        watch = await self.door.accept(NewRun(accepted=event, body=b"{}", deadline_ms=30_000))
        watch.close()
        return run

    async def decided(self, run: str) -> RunStatus:
        """The run once it has left `checking`."""

        async def left() -> bool:
            return (await self.status(run)).state != "checking"

        await eventually(left)
        return await self.status(run)

    async def verdict(self, run: str) -> Verdict:
        """What authorization said about a decided run, its signature checked."""
        await self.decided(run)
        fields = await self.context.runs.fields(run)
        return open_verdict(Verifier(RING), "authorization", fields["v:authorization"])


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Poll until it is so."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await true():
        assert loop.time() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.01)


async def replica(url: str, record: Record, name: str) -> Replica:
    clock, chance, topology = SystemClock(), SystemRandom(), load()
    context = await Context.open(
        RedisSettings(url=url, allow_no_aof=True), name, clock, chance, RING, topology, PARTITIONS
    )
    await apply(topology, PARTITIONS, context.redis)
    shared = Shared.over(context.redis, record.load, clock, RING)
    stages = build(context, shared.keys, shared.catalog, shared.limits, AuthorizationSettings())
    reader = await context.reader("control")
    control = Control(reader, topology, Verifier(RING), clock, chance, shared.hear, shared.forget)
    door = StreamDoor(
        name, PARTITIONS, context.scripts, context.runs, context.seals("ingress"), clock, chance, Bounds()
    )
    workers = Workers(context=context, stages=stages, grace_s=2.0)
    context._readers.append(reader)
    await workers.start()
    await control.start()
    return Replica(context, shared, workers, control, door)


@pytest.fixture
def record() -> Record:
    return Record({item.key_id: item for item in (key(1), key(2, requests_per_minute=5), key(3, concurrency=1))})


@pytest.fixture
async def pair(valkey_cluster: str, record: Record) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two processes over one cluster-enabled server with four partitions."""
    both = (await replica(valkey_cluster, record, "one"), await replica(valkey_cluster, record, "two"))
    await both[0].shared.catalog.publish([MODEL])
    both[1].shared.catalog.forget()
    yield both
    for each in both:
        await each.control.stop()
        await each.workers.stop()
        await each.context.close()


Pair = tuple[Replica, Replica]


async def test_an_allowed_run_is_queued_for_its_pool_with_a_signed_grant(pair: Pair) -> None:
    run = await pair[0].send()
    verdict = await pair[0].verdict(run)
    assert (verdict.run, verdict.outcome) == (run, "pass")
    assert verdict.grant is not None
    assert verdict.grant.pool == MODEL.pool
    status = await pair[0].status(run)
    assert (status.state, status.tenant) == ("queued", "acme")


async def test_a_refused_run_ends_with_an_error_frame_and_never_reaches_a_router(pair: Pair) -> None:
    run = await pair[0].send(9)
    status = await pair[0].decided(run)
    assert (status.state, status.outcome) == ("ended", "refused")
    watch = await pair[1].door.attach(run, 0)
    frame = await watch.next(5.0)
    assert frame is not None
    assert decode_failure(frame.payload).code == "invalid_api_key"
    assert not [name for name in await pair[0].context.redis.execute("KEYS", "*cleared*") if b"lanes" not in name]


async def test_requests_per_minute_are_exact_over_two_processes_and_four_partitions(pair: Pair) -> None:
    runs = await asyncio.gather(*(pair[n % 2].send(2) for n in range(20)))
    verdicts = [await pair[0].verdict(run) for run in runs]
    assert sum(verdict.outcome == "pass" for verdict in verdicts) == 5
    refused = [verdict.failure for verdict in verdicts if verdict.failure]
    assert {failure.code for failure in refused} == {"rate_limit_exceeded"}
    assert all(0 < (failure.retry_after_ms or 0) <= 60_000 for failure in refused)


async def test_concurrency_is_free_again_once_the_run_is_settled(pair: Pair) -> None:
    first = await pair[0].verdict(await pair[0].send(3))
    assert first.grant is not None
    assert (await pair[1].verdict(await pair[1].send(3))).outcome == "refuse"
    await pair[1].shared.limits.settle(first.grant.tenant, first.run, first.grant.scopes)
    assert (await pair[1].verdict(await pair[1].send(3))).outcome == "pass"


async def test_a_revoked_key_is_refused_by_every_process_once_they_heard(pair: Pair, record: Record) -> None:
    for each in pair:
        assert (await each.verdict(await each.send())).outcome == "pass"
    dead = replace(key(1), revoked_ms=1)
    record.rows[dead.key_id] = dead
    await pair[0].shared.keys.project(dead)
    await pair[0].context.publisher("console").publish("control", KeyChanged(key_id=dead.key_id))

    async def heard() -> bool:
        found = [await each.shared.keys.find(dead.key_id) for each in pair]
        return found == [dead, dead]

    await eventually(heard, 1.0)
    verdicts = [await each.verdict(await each.send()) for each in pair for _ in range(4)]
    assert {verdict.failure.code for verdict in verdicts if verdict.failure} == {"invalid_api_key"}
    assert {verdict.outcome for verdict in verdicts} == {"refuse"}


async def test_an_unsigned_control_entry_changes_nothing(pair: Pair) -> None:
    assert (await pair[0].verdict(await pair[0].send())).outcome == "pass"
    await pair[0].context.redis.execute("XADD", "control", "*", "e", b'{"type":"KeyChanged"}', "s", b"k1:00")
    assert (await pair[0].verdict(await pair[0].send())).outcome == "pass"


async def test_warm_keys_pass_while_postgres_is_away_and_a_cold_one_waits_for_it(pair: Pair, record: Record) -> None:
    for each in pair:
        await each.verdict(await each.send())
    record.away = True
    cold = await pair[0].send(2)
    for each in pair:
        for _ in range(4):
            assert (await each.verdict(await each.send())).outcome == "pass"
    assert (await pair[0].status(cold)).state == "checking"
    record.away = False
    assert (await pair[0].verdict(cold)).outcome == "pass"
