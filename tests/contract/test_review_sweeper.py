"""What keeps the sweeper from its work, and what it must not do: an outage is nobody's lateness."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from runtime import sweeper
from runtime.sweeper import Sweeper
from tests.engine_support import seals
from tests.run_support import CHANCE, CLOCK, PARTITIONS, Hands, RedisWorld, acceptance, answer, open_world, until

OLD = 1  # a heartbeat of long ago, by any clock


@pytest_asyncio.fixture
async def server(valkey_cluster: str) -> AsyncIterator[RedisWorld]:
    """A real server, empty."""
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        yield world


def _sweeper(world: RedisWorld, calm_s: float = 0.0, **trims: tuple[str, ...]) -> Sweeper:
    hands = seals("sweeper")
    return Sweeper(world.redis, world.scripts, world.runs, hands, CLOCK, CHANCE, PARTITIONS, trims, calm_s)


async def test_doors_that_could_not_beat_during_an_outage_keep_their_runs(server: RedisWorld) -> None:
    hands, checked = Hands(server), Hands(server)
    await hands.accept(watcher="door#1")
    await server.scripts.verdict(answer(hands.run, "authorization"))
    await server.scripts.accept(acceptance(checked.run, checks_ms=0))
    late = Hands(server)
    await server.scripts.accept(acceptance(late.run, checks_ms=0, deadline_ms=0))
    swept = _sweeper(server, calm_s=3600.0)
    server.redis.interrupt()
    await until(lambda: not server.redis.connected)
    await swept.round()
    await until(lambda: server.redis.connected)
    await server.redis.execute("ZADD", f"{hands.p}:doors", OLD, "door")
    await swept.round()
    assert (await hands.state(), await checked.state()) == ("checking", "checking")
    assert await late.state() == "ended"  # nobody can be in time for this one any more
    await _sweeper(server).round()
    assert (await hands.state(), await checked.state()) == ("ended", "ended")


async def test_run_that_cannot_be_judged_does_not_stop_the_others(server: RedisWorld) -> None:
    broken, late = Hands(server), Hands(server)
    for hands in (broken, late):
        await server.scripts.accept(acceptance(hands.run, checks_ms=0, deadline_ms=0))
    await server.redis.execute("HSET", broken.hash, "deadline", "soon")
    await server.redis.execute("ZADD", f"{late.p}:live", OLD, broken.run)
    await server.redis.execute("ZADD", f"{late.p}:doors", OLD, "lost")
    await _sweeper(server).round()
    assert await late.state() == "ended" and await broken.state() == "checking"
    assert await server.redis.execute("ZCARD", f"{late.p}:doors") == 0


async def test_all_overdue_runs_end_in_one_round(server: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_PAGE", 2)
    everyone = [Hands(server) for _ in range(9)]
    for hands in everyone:
        await server.scripts.accept(replace(acceptance(hands.run), checks_ms=0, deadline_ms=0))
    await server.redis.execute("HSET", everyone[0].hash, "deadline", "soon")
    await _sweeper(server).round()
    assert [await hands.state() for hands in everyone] == ["checking", *["ended"] * 8]
