"""Strict runs: answered once they are on disk, refused where nobody can say that, withdrawn when it takes too long."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from runtime.app import Context, RedisSettings, StrictError, StrictSettings
from runtime.client import Client
from runtime.disk import ALWAYS, WAITAOF, Disk, promise_of
from runtime.door import Bounds, StreamDoor
from runtime.topology import load
from schemas.errors import Refusal, Unavailable
from schemas.ports import NewRun
from tests.conftest import short_folder
from tests.engine_support import request, seals
from tests.run_support import CHANCE, CLOCK, RING, Hands, RedisWorld, open_world, until
from tests.servers import TEST_PASSWORD, DebianRedis

BATCH = StrictSettings(lanes=("batch",))


@pytest.fixture(params=[(EmbeddedValkey, "everysec"), (EmbeddedValkey, "always"), (DebianRedis, "always")], ids=str)
def durable(request: pytest.FixtureRequest) -> Iterator[EmbeddedValkey]:
    """A server that can say what is on its disk."""
    kind, fsync = request.param
    with _server(kind, fsync) as running:
        yield running


@pytest.fixture
def vague() -> Iterator[EmbeddedValkey]:
    """One that cannot: Redis 7.0 with appendfsync everysec."""
    with _server(DebianRedis, "everysec") as running:
        yield running


@contextmanager
def _server(kind: type[EmbeddedValkey], fsync: str) -> Iterator[EmbeddedValkey]:
    with short_folder() as folder:
        made = kind(folder, ValkeySettings(TEST_PASSWORD, fsync=fsync, tied=True))
        made.start()
        yield made
        made.stop()


@asynccontextmanager
async def _door(url: str, wait_s: float = 5.0, replicas: int = 0) -> AsyncIterator[tuple[StreamDoor, RedisWorld]]:
    """A door as the ingress has it, with a look behind it."""
    context = await Context.open(RedisSettings(url=url), "door", CLOCK, CHANCE, RING, load(), 1)
    async with open_world("valkey", lambda: url) as world:
        assert isinstance(world, RedisWorld)
        disk = await context.disk(StrictSettings(wait_s=wait_s, replicas=replicas), 0)
        hands = seals("ingress")
        yield StreamDoor("door", 1, context.scripts, context.runs, hands, CLOCK, CHANCE, Bounds(), disk), world
        if disk is not None:
            await disk.close()
    await context.close()


def _new(door: StreamDoor) -> NewRun:
    return NewRun(accepted=request(door.mint()), body=b"{}", deadline_ms=60_000, strict=True)


async def test_accepted_strict_runs_are_on_disk(durable: EmbeddedValkey) -> None:
    """Where the server can say so it was asked, once for those that came together."""
    async with _door(durable.url) as (door, world):
        watches = await asyncio.gather(*(door.accept(_new(door)) for _ in range(20)))
        more = await door.accept(_new(door))
        asked = re.search(r"cmdstat_waitaof:calls=(\d+)", str(await world.redis.execute("INFO", "commandstats")))
        assert (int(asked[1]) if asked else 0) in ((2, 3) if await promise_of(world.redis) == WAITAOF else (0,))
        for watch in (*watches, more):
            assert await Hands(world, watch.run).state() == "checking"
            watch.close()


async def test_server_without_the_promise_is_refused_at_start_where_it_is_asked_for(vague: EmbeddedValkey) -> None:
    context = await Context.open(RedisSettings(url=vague.url), "door", CLOCK, CHANCE, RING, load(), 1)
    try:
        assert await promise_of(context.redis) == ""
        for asked in (BATCH, StrictSettings(models=("*",)), StrictSettings(keys=("k1",))):
            with pytest.raises(StrictError, match=r"runs\.strict asks for runs that are on disk"):
                await context.disk(asked, 0)
        assert await context.disk(StrictSettings(), 0) is None
        await context.redis.execute("CONFIG", "SET", "appendfsync", "always")
        assert await promise_of(context.redis) == ALWAYS
        with pytest.raises(StrictError, match=r"runs\.strict\.replicas needs WAITAOF"):
            await context.disk(StrictSettings(replicas=1), 0)
        await context.redis.execute("CONFIG", "SET", "appendonly", "no")
        assert await promise_of(context.redis) == ""
    finally:
        await context.close()


async def test_request_for_what_cannot_be_promised_is_refused(vague: EmbeddedValkey) -> None:
    async with _door(vague.url) as (door, world):
        new = _new(door)
        with pytest.raises(Refusal, match="cannot say when a request is on its disk"):
            await door.accept(new)
        assert await Hands(world, new.accepted.run).state() == "" and door.hub.live == 0


async def test_run_that_is_late_on_disk_is_unavailable_and_withdrawn(durable: EmbeddedValkey) -> None:
    """A replica that never comes."""
    if durable.settings.fsync == "always" and isinstance(durable, DebianRedis):
        return  # it has no WAITAOF, and replicas are refused at the start
    async with _door(durable.url, wait_s=0.05, replicas=1) as (door, world):
        new = _new(door)
        with pytest.raises(Unavailable, match="not on disk within 50 ms"):
            await door.accept(new)
        hands = Hands(world, new.accepted.run)
        await until(lambda: _is(hands, "cancelled"))
        assert door.hub.live == 0


async def _is(hands: Hands, outcome: str) -> bool:
    return await hands.field("outcome") == outcome


async def test_server_that_dies_before_the_disk_has_answered_is_unavailable(durable: EmbeddedValkey) -> None:
    async with _door(durable.url) as (door, world):
        if await promise_of(world.redis) != WAITAOF:
            return
        await (await door.accept(_new(door))).leave()
        os.kill(durable.pid, signal.SIGSTOP)
        asked = asyncio.create_task(door.accept(_new(door)))
        await asyncio.sleep(0.05)
        os.kill(durable.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await asked
        durable.start()
        await until(lambda: _accepts(door))


async def _accepts(door: StreamDoor) -> bool:
    """Whether strict runs are taken in again: the connections come back one by one."""
    try:
        (await door.accept(_new(door))).close()
    except Unavailable:
        return False
    return True


async def test_stopping_process_answers_who_waits() -> None:
    made = Disk(_never, 1_000, 5_000)
    new: object = None
    asked = asyncio.create_task(made.accept(new))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    await made.close()
    with pytest.raises(Unavailable, match="stops"):
        await asked


async def _never() -> Client:
    await asyncio.Event().wait()
    raise AssertionError("never reached")
