"""Promises of ports.Catalog: the twin and a real server, then the caching of the real one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.client import Client
from schemas.errors import Unavailable
from schemas.records import EndpointRecord, ModelRecord
from state.catalog import ENDPOINTS, MODELS, RedisCatalog
from state.memory import MemoryCatalog
from tests.state_support import FakeClock, Gone, Switch

SMALL = ModelRecord(name="small", pool="small", created=1)
LARGE = ModelRecord(name="org/large-1.5", pool="gpu", created=2)
FIRST = EndpointRecord(endpoint="e1", deployment="d1", pool="gpu", model="org/large-1.5", url="http://127.0.0.1:1/v1")
SECOND = replace(FIRST, endpoint="e2", url="http://127.0.0.1:2/v1")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "valkey"])
def catalog(request: pytest.FixtureRequest, redis: Client, clock: FakeClock) -> MemoryCatalog | RedisCatalog:
    return MemoryCatalog() if request.param == "memory" else RedisCatalog(redis, clock)


async def test_an_empty_catalog_knows_nothing(catalog: MemoryCatalog | RedisCatalog) -> None:
    assert await catalog.model("small") is None
    assert list(await catalog.models()) == []
    assert list(await catalog.endpoints("gpu")) == []


async def test_what_is_published_is_found_by_name_and_by_pool(catalog: MemoryCatalog | RedisCatalog) -> None:
    await catalog.publish([SMALL, LARGE], [SECOND, FIRST])
    assert await catalog.model("org/large-1.5") == LARGE
    assert list(await catalog.models()) == [LARGE, SMALL]
    assert list(await catalog.endpoints("gpu")) == [FIRST, SECOND]
    assert list(await catalog.endpoints("small")) == []


async def test_publishing_again_replaces(catalog: MemoryCatalog | RedisCatalog) -> None:
    await catalog.publish([SMALL], [FIRST])
    await catalog.publish([], [replace(FIRST, up=False)])
    assert [item.up for item in await catalog.endpoints("gpu")] == [False]
    await catalog.publish([replace(SMALL, pool="other")])
    found = await catalog.model("small")
    assert found is not None
    assert found.pool == "other"


async def test_what_is_withdrawn_is_gone_and_may_be_withdrawn_again(catalog: MemoryCatalog | RedisCatalog) -> None:
    await catalog.publish([SMALL, LARGE], [FIRST, SECOND])
    for _ in range(2):
        await catalog.withdraw(["org/large-1.5"], ["e1"])
    assert await catalog.model("org/large-1.5") is None
    assert list(await catalog.endpoints("gpu")) == [SECOND]


async def test_another_replica_sees_a_change_when_told_and_within_five_seconds_if_not(
    redis: Client, clock: FakeClock
) -> None:
    writer, told, untold = (RedisCatalog(redis, clock) for _ in range(3))
    for reader in (told, untold):
        assert await reader.model("small") is None
    await writer.publish([SMALL])
    told.forget()
    assert await told.model("small") == SMALL
    assert await untold.model("small") is None
    clock.advance(5)
    assert await untold.model("small") == SMALL


async def test_a_fresh_snapshot_asks_no_server(redis: Client, clock: FakeClock) -> None:
    switch = Switch(redis)
    catalog = RedisCatalog(switch, clock)
    await catalog.models()
    before = switch.calls
    await catalog.model("small")
    await catalog.endpoints("gpu")
    assert switch.calls == before


async def test_redis_away_the_last_snapshot_serves_and_the_server_is_not_hammered(
    redis: Client, clock: FakeClock
) -> None:
    switch = Switch(redis)
    catalog = RedisCatalog(switch, clock)
    await catalog.publish([SMALL], [FIRST])
    await catalog.models()
    switch.away = True
    clock.advance(3600)
    assert await catalog.model("small") == SMALL
    before = switch.calls
    assert list(await catalog.endpoints("gpu")) == [FIRST]
    assert switch.calls == before
    switch.away = False
    await RedisCatalog(redis, clock).withdraw(["small"])
    clock.advance(1)
    assert await catalog.model("small") is None


async def test_redis_away_and_nothing_ever_read_is_unavailable(clock: FakeClock) -> None:
    with pytest.raises(Unavailable):
        await RedisCatalog(Gone(), clock).model("small")


async def test_an_entry_of_a_newer_form_is_left_out_and_hides_no_other(redis: Client, clock: FakeClock) -> None:
    catalog = RedisCatalog(redis, clock)
    await catalog.publish([SMALL], [FIRST])
    await redis.execute("HSET", MODELS, "odd", b'{"name": 7}')
    await redis.execute("HSET", ENDPOINTS, "odd", b"not json")
    catalog.forget()
    assert list(await catalog.models()) == [SMALL]
    assert list(await catalog.endpoints("gpu")) == [FIRST]
