"""Finding the master through Sentinel, and finding the next one when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from runtime.client import Address, Client
from runtime.push import RedisPush
from runtime.scripts import RedisScripts
from schemas.errors import Unavailable
from tests.conftest import short_folder
from tests.guarded import MASTER, Guarded, guarded
from tests.run_support import CHANCE, CLOCK, RETENTION_MS, until
from tests.servers import REDIS_KINDS

P = "{1}"


@pytest.fixture(params=REDIS_KINDS)
def servers(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with short_folder() as folder, guarded(folder, request.param) as running:
        yield running


@pytest_asyncio.fixture
async def client(servers: Guarded) -> AsyncIterator[Client]:
    """Connected to whoever is the master."""
    made = Client(Address.parse(servers.url), CLOCK, CHANCE)
    await made.connect()
    yield made
    await made.close()


async def _insist(client: Client, *words: str) -> object:
    """As every caller does while the store is away."""
    while True:
        try:
            return await client.execute(*words)
        except Unavailable:
            await asyncio.sleep(0.02)


async def test_everything_moves_to_the_promoted_replica(servers: Guarded, client: Client) -> None:
    """Writes, subscriptions, and the knowledge of who is in charge; what the replica never got is gone."""
    scripts, heard, missed = RedisScripts(client, RETENTION_MS), list[bytes](), asyncio.Event()
    push = RedisPush(Address.parse(servers.url), CLOCK, CHANCE, "test")
    await push.start()
    try:
        await push.listen([f"{P}:push:x"], heard.append, missed.set)
        assert client.place.port == servers.primary.port
        await client.execute("SET", "kept", "1")
        await scripts.tenure(P)

        async def is_known() -> bool:
            return await scripts.tenure(P) > 0 and servers.replica.says("keyspace", "keys=2")

        await until(is_known)
        await asyncio.to_thread(servers.lag)
        await client.execute("SET", "lost", "1")
        await asyncio.to_thread(servers.fail_over)
        assert await _insist(client, "MGET", "kept", "lost") == [b"1", None]
        assert (client.place.port, client.losses) == (servers.replica.port, client.losses) and client.losses > 0
        assert await scripts.tenure(P) == 0
        await until(missed.is_set)
        await until(lambda: _published(client, heard))
    finally:
        await push.stop()


async def _published(client: Client, heard: list[bytes]) -> bool:
    await client.execute("SPUBLISH", f"{P}:push:x", "hello")
    return bool(heard)


async def test_demoted_server_is_left(servers: Guarded, client: Client) -> None:
    """Both live on; whoever still writes to the old one is told so, or finds out from Sentinel."""
    await until(lambda: servers.sentinel.ask("SENTINEL", "FAILOVER", MASTER).startswith(b"+OK"))
    await until(lambda: client.place.port == servers.replica.port and client.connected)
    assert await _insist(client, "SET", "a", "1") == b"OK"
    assert b"$1\r\n1" in servers.replica.ask("GET", "a")


async def test_server_that_became_a_replica_is_left_and_looked_up_again(servers: Guarded) -> None:
    """Without Sentinel too: the name may lead to another server by now."""
    plain = Client(Address.parse(servers.primary.url), CLOCK, CHANCE)
    await plain.connect()
    try:
        servers.primary.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Unavailable, match="READONLY"):
            await plain.execute("SET", "a", "1")
        await until(lambda: plain.losses == 1 and plain.connected)
        servers.primary.ask("REPLICAOF", "NO", "ONE")
        assert await _insist(plain, "SET", "a", "1") == b"OK"
    finally:
        await plain.close()


async def test_unknown_master_and_absent_sentinels_are_named(servers: Guarded) -> None:
    url = servers.url.replace(f"/{MASTER}/", "/somebody/")
    with pytest.raises(Unavailable, match=f"127.0.0.1:{servers.sentinel.port}: ERR No such master with that name"):
        await Client(Address.parse(url), CLOCK, CHANCE).connect()


async def test_sentinel_that_names_a_replica_is_not_believed(servers: Guarded) -> None:
    """In the middle of a failover it may: nobody is served by a server that takes no writes."""
    address = Address.parse(servers.url)
    servers.primary.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(Unavailable, match="it is a replica"):
        await Client(address, CLOCK, CHANCE).connect()
