"""Strict runs: answered once they are on disk, refused where nobody can say that, withdrawn when it takes too long."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from runtime.app import Context, RedisSettings, StrictError, StrictSettings
from runtime.client import Client
from runtime.disk import ALWAYS, Disk, Later, promise_of
from runtime.door import Bounds, StreamDoor
from runtime.names import prefix
from runtime.topology import load
from schemas.errors import Refusal, Unavailable
from schemas.ports import Mark, NewRun, Once
from tests.conftest import short_folder
from tests.engine_support import request, seals
from tests.run_support import CHANCE, CLOCK, RETENTION_MS, RING, Hands, RedisWorld, open_world, until
from tests.servers import TEST_PASSWORD, DebianRedis

BATCH = StrictSettings(lanes=("batch",))


@pytest.fixture(params=[EmbeddedValkey, DebianRedis])
def durable(request: pytest.FixtureRequest) -> Iterator[EmbeddedValkey]:
    """A server that answers after its disk."""
    with _server(request.param, "always") as running:
        yield running


@pytest.fixture(params=[EmbeddedValkey, DebianRedis])
def vague(request: pytest.FixtureRequest) -> Iterator[EmbeddedValkey]:
    """One that cannot say: Redis 7.0 has no WAITAOF, that of Valkey 9.1 answers before it syncs."""
    with _server(request.param, "everysec") as running:
        yield running


@pytest.fixture
def waiting() -> Iterator[EmbeddedValkey]:
    """One with WAITAOF, whatever it is worth."""
    with _server(EmbeddedValkey, "everysec") as running:
        yield running


@contextmanager
def _server(kind: type[EmbeddedValkey], fsync: str) -> Iterator[EmbeddedValkey]:
    with short_folder() as folder:
        made = kind(folder, ValkeySettings(TEST_PASSWORD, fsync=fsync, tied=True))
        made.start()
        yield made
        made.stop()


@asynccontextmanager
async def _door(
    url: str, wait_s: float = 5.0, replicas: int = 0, *, waits: bool = False
) -> AsyncIterator[tuple[StreamDoor, RedisWorld]]:
    """A door as the ingress has it, with a look behind it. waits: believe in WAITAOF."""
    context = await Context.open(RedisSettings(url=url), "door", CLOCK, CHANCE, RING, load(), 1)
    async with open_world("valkey", lambda: url) as world:
        assert isinstance(world, RedisWorld)
        believed = Disk(lambda: context.reader("disk"), RETENTION_MS, round(wait_s * 1000), replicas)
        disk = believed if waits else await context.disk(StrictSettings())
        hands = seals("ingress")
        yield StreamDoor("door", 1, context.scripts, context.runs, hands, CLOCK, CHANCE, Bounds(), disk=disk), world
        await believed.close()
    await context.close()


def _new(door: StreamDoor, once: Once | None = None) -> NewRun:
    accepted = request(door.mint(), keep_ms=60_000 if once else 0)
    return NewRun(accepted=accepted, body=b"{}", deadline_ms=60_000, strict=True, once=once)


async def _accept_some(door: StreamDoor, world: RedisWorld) -> int:
    """Twenty at once and one more; how often the server was asked to wait."""
    watches = await asyncio.gather(*(door.accept(_new(door)) for _ in range(20)))
    watches.append(await door.accept(_new(door)))
    for watch in watches:
        assert await Hands(world, watch.run).state() == "checking"
        watch.close()
    asked = re.search(r"cmdstat_waitaof:calls=(\d+)", str(await world.redis.execute("INFO", "commandstats")))
    return int(asked[1]) if asked else 0


async def test_server_that_answers_after_its_disk_is_asked_for_nothing_more(durable: EmbeddedValkey) -> None:
    async with _door(durable.url) as (door, world):
        assert await _accept_some(door, world) == 0


async def test_what_comes_together_waits_together(waiting: EmbeddedValkey) -> None:
    async with _door(waiting.url, waits=True) as (door, world):
        assert await _accept_some(door, world) in (2, 3)


async def test_server_without_the_promise_is_refused_at_start_where_it_is_asked_for(vague: EmbeddedValkey) -> None:
    context = await Context.open(RedisSettings(url=vague.url), "door", CLOCK, CHANCE, RING, load(), 1)
    try:
        promise = functools.partial(promise_of, context.redis, lambda: context.reader("disk"))
        assert await promise() == ""
        for asked in (BATCH, StrictSettings(models=("*",)), StrictSettings(keys=("k1",))):
            with pytest.raises(StrictError, match=r"runs\.strict asks for runs that are on disk"):
                await context.disk(asked)
        assert await context.disk(StrictSettings()) is None
        await context.redis.execute("CONFIG", "SET", "appendfsync", "always")
        assert await promise() == ALWAYS
        with pytest.raises(StrictError, match=r"runs\.strict\.replicas needs WAITAOF"):
            await context.disk(StrictSettings(replicas=1))
        await context.redis.execute("CONFIG", "SET", "appendonly", "no")
        assert await promise() == ""
    finally:
        await context.close()


async def test_request_for_what_cannot_be_promised_is_refused(vague: EmbeddedValkey) -> None:
    async with _door(vague.url) as (door, world):
        new = _new(door)
        with pytest.raises(Refusal, match="cannot say when a request is on its disk"):
            await door.accept(new)
        assert await Hands(world, new.accepted.run).state() == "" and door.hub.live == 0


@pytest.mark.parametrize(("asked", "told"), [(StrictSettings(), Refusal), (BATCH, Unavailable)])
async def test_promise_is_looked_for_again_when_another_server_may_be_in_charge(
    vague: EmbeddedValkey, asked: StrictSettings, told: type[Exception]
) -> None:
    """After a failover to one with other settings no run is called strict that is not."""
    async with _door(vague.url) as (door, _):
        context = await Context.open(RedisSettings(url=vague.url), "door", CLOCK, CHANCE, RING, load(), 1)
        await context.redis.execute("CONFIG", "SET", "appendfsync", "always")
        door._disk = disk = Later(lambda: context.disk(asked), lambda: context.redis.losses)
        (await door.accept(_new(door))).close()
        await context.redis.execute("CONFIG", "SET", "appendfsync", "everysec")
        context.redis.interrupt()
        await until(lambda: _back(context.redis))
        with pytest.raises(told, match="cannot say when"):
            await door.accept(_new(door))
        await context.redis.execute("CONFIG", "SET", "appendfsync", "always")
        if told is Unavailable:  # what was wanted at the start is looked for until it is there
            (await door.accept(_new(door))).close()
        await disk.close()
        await context.close()


async def _back(client: Client) -> bool:
    return client.losses > 0 and client.connected


async def test_run_that_is_late_on_disk_is_unavailable_and_withdrawn(waiting: EmbeddedValkey) -> None:
    """A replica that never comes."""
    async with _door(waiting.url, 0.05, 1, waits=True) as (door, world):
        new = _new(door)
        with pytest.raises(Unavailable, match="not on disk within 50 ms"):
            await door.accept(new)
        hands = Hands(world, new.accepted.run)
        await until(lambda: _is(hands, "cancelled"))
        assert door.hub.live == 0


async def test_run_is_withdrawn_where_the_server_cannot_say_any_more(waiting: EmbeddedValkey) -> None:
    """A failover to a server without the file, or an operator who turned it off."""
    async with _door(waiting.url, waits=True) as (door, world):
        await (await door.accept(_new(door))).leave()
        await world.redis.execute("CONFIG", "SET", "appendonly", "no")
        new = _new(door)
        with pytest.raises(Unavailable, match="does not say any more"):
            await door.accept(new)
        hands = Hands(world, new.accepted.run)
        await until(lambda: _is(hands, "cancelled"))
        assert door.hub.live == 0


async def test_strict_requests_under_one_key_are_one_run_that_is_on_disk(waiting: EmbeddedValkey) -> None:
    once = Once(marks=(Mark("name", "asked"),), spread=0, tenant="org")
    async with _door(waiting.url, waits=True) as (door, world):
        await world.redis.execute("SET", f"{prefix(0)}:once", 1)  # nobody has asked before: no archive is needed
        watches = await asyncio.gather(*(door.accept(_new(door, once)) for _ in range(10)))
        assert len({watch.run for watch in watches}) == 1
        assert sorted(watch.replayed for watch in watches) == [False, *[True] * 9]
        asked = str(await world.redis.execute("INFO", "commandstats"))
        assert "cmdstat_waitaof:calls=1," in asked
        for watch in watches:
            watch.close()


async def test_key_of_a_strict_run_that_was_late_on_disk_is_free_again(waiting: EmbeddedValkey) -> None:
    once = Once(marks=(Mark("name", "asked"),), spread=0, tenant="org")
    async with _door(waiting.url, 0.05, 1, waits=True) as (late, world):
        await world.redis.execute("SET", f"{prefix(0)}:once", 1)
        with pytest.raises(Unavailable):
            await late.accept(_new(late, once))
        await until(lambda: _free(world))
    async with _door(waiting.url, waits=True) as (door, world):
        watch = await door.accept(_new(door, once))
        assert not watch.replayed
        assert await Hands(world, watch.run).state() == "checking"
        watch.close()


async def _free(world: RedisWorld) -> bool:
    return bool(await world.redis.execute("HGET", f"{prefix(0)}:once:name", "fate") == b"forgotten")


async def _is(hands: Hands, outcome: str) -> bool:
    return await hands.field("outcome") == outcome


@pytest.mark.parametrize("waits", [False, True])
async def test_server_that_dies_before_it_has_answered_is_unavailable(waits: bool) -> None:
    kind, fsync = (EmbeddedValkey, "everysec" if waits else "always")
    with _server(kind, fsync) as durable:
        await _dies(durable, waits)


async def _dies(durable: EmbeddedValkey, waits: bool) -> None:
    async with _door(durable.url, waits=waits) as (door, _world):
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


async def test_stopping_process_answers_who_waits_for_a_round_to_begin_and_begins_none() -> None:
    made, connects = Disk(_never, 1_000, 5_000), 0

    async def connect() -> Client:
        nonlocal connects
        connects += 1
        return await _never()

    made.connect = connect
    first = asyncio.create_task(made.accept(None))  # type: ignore[arg-type]
    await until(lambda: _connected(lambda: connects))
    second = asyncio.create_task(made.accept(None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await made.close()
    for asked in (first, second, asyncio.create_task(made.accept(None))):  # type: ignore[arg-type]
        with pytest.raises(Unavailable, match="stops"):
            await asyncio.wait_for(asked, 5)
    await asyncio.sleep(0.1)  # longer than the wait between two rounds
    assert connects == 1


async def _connected(count: Callable[[], int]) -> bool:
    return count() > 0


async def _never() -> Client:
    await asyncio.Event().wait()
    raise AssertionError("never reached")
