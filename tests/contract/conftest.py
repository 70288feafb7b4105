"""One suite, several implementations: the memory twin, a cluster-enabled Valkey and Redis 7.0; PostgreSQL 18 and 15.

`world`, and the fixtures here that a test of this folder gets in place of those of the same name above.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from runtime.client import Client
from storage.ports import Store
from tests.run_support import Hands, World, open_world
from tests.servers import POSTGRES_KINDS, REDIS_KINDS, PostgresOf, RedisOf, a_database
from tests.state_support import connect
from tests.storage_support import a_store


@pytest.fixture(params=REDIS_KINDS)
def valkey_cluster(request: pytest.FixtureRequest, redis_of: RedisOf) -> str:
    """URL of an empty cluster-enabled server of each kind."""
    return empty(redis_of, request.param)


@pytest_asyncio.fixture
async def redis(valkey_cluster: str) -> AsyncIterator[Client]:
    """A client of that server."""
    client = await connect(valkey_cluster)
    yield client
    await client.close()


@pytest.fixture(params=POSTGRES_KINDS)
def postgres(request: pytest.FixtureRequest, postgres_of: PostgresOf) -> Iterator[str]:
    """DSN of an empty database on a server of each kind."""
    with a_database(postgres_of(request.param)) as dsn:
        yield dsn


@pytest_asyncio.fixture(params=["memory", *POSTGRES_KINDS])
async def store(request: pytest.FixtureRequest, postgres_of: PostgresOf) -> AsyncIterator[Store]:
    """A fresh record."""
    with contextlib.ExitStack() as stack:
        dsn = None if request.param == "memory" else stack.enter_context(a_database(postgres_of(request.param)))
        async with a_store(dsn) as opened:
            yield opened


def empty(redis_of: RedisOf, kind: str) -> str:
    """URL of that server, emptied; "" for the memory twin."""
    if kind == "memory":
        return ""
    redis_of(kind).ask("FLUSHALL")
    return redis_of(kind).url


@pytest_asyncio.fixture(params=["memory", *REDIS_KINDS])
async def world(request: pytest.FixtureRequest, redis_of: RedisOf) -> AsyncIterator[World]:
    """Delivery, empty."""
    async with open_world(request.param, lambda: empty(redis_of, request.param)) as opened:
        yield opened


@pytest.fixture
def hands(world: World) -> Hands:
    """One run's hands in that world."""
    return Hands(world)
