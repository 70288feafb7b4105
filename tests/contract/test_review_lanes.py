"""A lane whose model was removed is read for as long as runs are in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest_asyncio

from console import rooms
from runtime.inspect import laden_pools
from schemas.routes import MODERATIONS_POOL
from state.catalog import RedisCatalog
from tests.run_support import CLOCK, PARTITIONS, POOL, Hands, RedisWorld, open_world


@pytest_asyncio.fixture
async def server(valkey_cluster: str) -> AsyncIterator[RedisWorld]:
    """A real server, empty."""
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        yield world


async def test_pool_is_laden_until_its_last_run_has_ended(server: RedisWorld) -> None:
    hands = Hands(server)
    assert await laden_pools(server.redis, PARTITIONS) == set()
    await hands.own()
    assert await laden_pools(server.redis, PARTITIONS) == {POOL}
    await hands.end("1-0", "r1:a", guard="owner")
    assert await laden_pools(server.redis, PARTITIONS) == set()


async def test_router_reads_the_lanes_of_a_removed_model_while_runs_wait_there(server: RedisWorld) -> None:
    hands = Hands(server)
    await hands.queue()
    context = SimpleNamespace(redis=server.redis, partitions=PARTITIONS)
    shared = SimpleNamespace(catalog=RedisCatalog(server.redis, CLOCK))
    house: Any = SimpleNamespace(context=context, shared=shared, pools=())
    woken: list[str] = []
    await rooms._look_at_pools(house, cast(Any, SimpleNamespace(wake=woken.append)))
    assert house.pools == (MODERATIONS_POOL, POOL) and woken == ["router"]
