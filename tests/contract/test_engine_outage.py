"""A server that goes away and comes back: the client's connection, a working engine, entries in its hands."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from console.embedded.valkey import EmbeddedValkey
from runtime.client import Address, Client, ServerError
from schemas.errors import Unavailable
from schemas.outcomes import Delivery, Outcome
from tests.engine_support import House, Seen
from tests.run_support import CHANCE, CLOCK, RedisWorld, until


@pytest_asyncio.fixture
async def client(valkey_cluster: str) -> AsyncIterator[Client]:
    """A connected client."""
    made = Client(Address.parse(valkey_cluster), CLOCK, CHANCE)
    await made.connect()
    yield made
    await made.close()


async def test_commands_of_one_turn_are_answered_in_order(client: Client) -> None:
    replies = await asyncio.gather(*(client.execute("ECHO", str(n)) for n in range(200)))
    assert replies == [str(n).encode() for n in range(200)]


async def test_script_unknown_to_the_server_is_loaded(client: Client) -> None:
    for _ in range(2):
        await client.execute("SCRIPT", "FLUSH")
        assert await client.script("return ARGV[1]", (), ("x",)) == b"x"


async def test_refusals_that_mean_not_now_are_unavailable_and_others_are_not(client: Client) -> None:
    for word in ("OOM", "LOADING", "MISCONF", "CLUSTERDOWN"):
        with pytest.raises(Unavailable):
            await client.script(f"return redis.error_reply('{word} for now')", (), ())
    with pytest.raises(ServerError, match="WRONG"):
        await client.script("return redis.error_reply('WRONG for ever')", (), ())
    await client.execute("SET", "s", "x")
    with pytest.raises(ServerError, match="WRONGTYPE"):
        await client.execute("XADD", "s", "*", "a", "b")


async def test_lost_connection_is_unavailable_at_once_and_mended(client: Client) -> None:
    told: list[int] = []

    async def hook() -> None:
        told.append(client.losses)

    client.on_connect(hook)
    waiting = client.send("BLPOP", "nothing", 0)
    client.interrupt()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        client.send("PING")
    await until(lambda: told)
    assert told == [1] and client.connected
    assert await client.execute("ECHO", "x") == b"x"


async def test_cancelled_caller_does_not_mix_up_the_replies(client: Client) -> None:
    given_up = asyncio.create_task(client.execute("ECHO", "old"))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await client.execute("ECHO", "new") == b"new"


async def test_nobody_there_is_unavailable_with_the_address() -> None:
    nobody = Client(Address.parse("redis://127.0.0.1:1/0"), CLOCK, CHANCE)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        await nobody.connect()


async def test_engine_outlives_a_killed_and_restarted_server(spare_valkey: EmbeddedValkey) -> None:
    """The handler finishes while the server is away; its acknowledgement is held until the server is back."""
    world = RedisWorld(spare_valkey.url)
    await world.start()
    house, seen = House(world), Seen()
    seen.gate.clear()
    try:
        engine = await house.engine(seen)
        first = await house.accept()
        await until(lambda: seen.runs == [first])
        port = spare_valkey.port
        os.kill(spare_valkey.pid, signal.SIGKILL)
        await until(lambda: not world.redis.connected)
        seen.gate.set()
        await until(lambda: seen.now == 0)
        spare_valkey.start()
        assert spare_valkey.port == port  # a server keeps its port: clients find it again
        await until(lambda: world.redis.connected)
        second = await house.accept()
        await until(house.settled)
        assert seen.runs.count(second) == 1 and engine.counters.dead == 0
        assert seen.starts[first][0] == 0
    finally:
        await house.close()
        await world.stop()


async def test_process_that_was_frozen_is_told_that_its_entry_went_elsewhere(valkey_cluster: str) -> None:
    """A loop that stands still longer than the idle limit: another consumer takes over, the first is told."""
    world = RedisWorld(valkey_cluster)
    await world.start()
    house = House(world)
    stuck, other = asyncio.Event(), Seen()

    async def slow(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        stuck.set()
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    try:
        engine = await house.engine(slow, name="frozen")
        run = await house.accept()
        await stuck.wait()
        engine._loops[1].cancel()  # no more beats
        await house.engine(other, name="lively")
        await until(lambda: other.runs == [run])
        await engine._beat()
        assert engine.counters.lost == 1 and engine.in_hand == 0
        await until(house.settled)
    finally:
        await house.close()
        await world.stop()
