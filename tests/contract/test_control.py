"""Control on a real server: who may say what, and that it is heard once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from base.crypto import Verifier
from runtime.client import Client
from runtime.control import Control
from runtime.publish import StreamPublisher
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas.errors import SignatureError
from schemas.events import CatalogChanged, DrainAsked, KeyChanged
from tests.run_support import CHANCE, CLOCK, RING, RedisWorld, open_world, until


class Ears:
    """What a process heard."""

    def __init__(self, world: RedisWorld, control: Control, heard: list[Any]) -> None:
        self.world, self.control, self.heard = world, control, heard

    def publisher(self, by: str) -> StreamPublisher:
        return StreamPublisher(self.world.redis, load(), Seals(RING, by, CLOCK, CHANCE), CLOCK, CHANCE)

    async def say(self, by: str, signer: str, event: wire.Event) -> None:
        """An entry that says it is of `by` and is signed by `signer`, past every check of the publisher."""
        e = wire.encode(event, id="x", by=by)
        signed = wire.sign(Seals(RING, signer, CLOCK, CHANCE).signer, "control", e)
        await self.world.redis.execute("XADD", "control", "*", "e", signed.e, "s", signed.s)


@pytest.fixture
async def ears(valkey_cluster: str) -> AsyncIterator[Ears]:
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        heard: list[Any] = []
        reader = Client(world.address, CLOCK, CHANCE, name="control", silence=12)
        await reader.connect()
        control = Control(reader, load(), Verifier(RING), CLOCK, CHANCE, heard.append, lambda: None)
        await world.redis.execute("XADD", "control", "1-0", "e", b"{}", "s", b"")
        await control.start()
        await until(lambda: _blocked(world))
        yield Ears(world, control, heard)
        await control.stop()
        await reader.close()


async def _blocked(world: RedisWorld) -> bool:
    """Whether the listener waits for entries."""
    return b"blocked_clients:1" in await world.redis.execute("INFO", "clients")


async def _listens(world: RedisWorld, reader: Client) -> bool:
    """Whether this very connection waits for entries."""
    return b"cmd=xread " in await world.redis.execute("CLIENT", "LIST", "ID", reader.client_id)


async def heard(ears: Ears, count: int) -> list[Any]:
    await until(lambda: _many(ears, count))
    return ears.heard


async def _many(ears: Ears, count: int) -> bool:
    return len(ears.heard) >= count


async def test_the_console_may_ask_a_process_to_drain(ears: Ears) -> None:
    await ears.publisher("console").publish("control", DrainAsked(consumer="rules-1-a"))
    assert await heard(ears, 1) == [DrainAsked(consumer="rules-1-a")]


@pytest.mark.parametrize("by", ["provisioner", "rules", "router"])
async def test_nobody_else_may(ears: Ears, by: str) -> None:
    with pytest.raises(SignatureError, match="does not let"):
        await ears.publisher(by).publish("control", DrainAsked(consumer="rules-1-a"))
    await ears.say(by, by, DrainAsked(consumer="rules-1-a"))
    await ears.say("console", by, DrainAsked(consumer="rules-1-a"))
    await ears.say("provisioner", "provisioner", CatalogChanged(pool="p"))
    await ears.say("console", "console", KeyChanged(key_id="k"))
    assert await heard(ears, 2) == [CatalogChanged(pool="p"), KeyChanged(key_id="k")]


async def test_server_that_lost_entries_is_heard_from_where_it_stands(ears: Ears) -> None:
    """A promoted replica whose clock is behind gives out ids that the listener has passed."""
    later = wire.encode(CatalogChanged(pool="lost"), id="x", by="console")
    signed = wire.sign(Seals(RING, "console", CLOCK, CHANCE).signer, "control", later)
    await ears.world.redis.execute("XADD", "control", "99999999999999-0", "e", signed.e, "s", signed.s)
    assert await heard(ears, 1) == [CatalogChanged(pool="lost")]
    await ears.world.redis.execute("DEL", "control")
    await ears.world.redis.execute("XADD", "control", "2-0", "e", b"{}", "s", b"")
    reader = ears.control._reader
    reader.interrupt()
    await until(lambda: reader.losses == 1 and reader.connected)
    await until(lambda: _listens(ears.world, reader))
    await ears.say("console", "console", KeyChanged(key_id="k"))
    assert (await heard(ears, 2))[1:] == [KeyChanged(key_id="k")]
