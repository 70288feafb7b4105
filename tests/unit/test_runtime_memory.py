"""The twin under a clock that a test moves: nothing happens by itself, everything happens in its time."""

from __future__ import annotations

import asyncio
import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.faults import parse
from runtime.group_spec import share
from runtime.memory import MemoryGroups, MemoryScripts, MemoryServer
from schemas.errors import Unavailable
from tests.run_support import FAMILIES, Hands, MemoryWorld, acceptance, answer


class BentClock:
    """Time stands still until `advance`; sleepers wake in order."""

    def __init__(self) -> None:
        self._ms = 1_700_000_000_000
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._ms

    def monotonic(self) -> float:
        return self._ms / 1000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._ms + int(seconds * 1000), len(self._sleepers), future))
        await future

    async def advance(self, ms: int) -> None:
        self._ms += ms
        while self._sleepers and self._sleepers[0][0] <= self._ms:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> BentClock:
    return BentClock()


@pytest.fixture
def world(clock: BentClock) -> MemoryWorld:
    return MemoryWorld(MemoryServer(clock))


async def test_ended_run_is_readable_until_its_retention_is_over(clock: BentClock, world: MemoryWorld) -> None:
    hands = Hands(world)
    world.scripts = MemoryScripts(world.server, 1_000)
    await hands.accept()
    await world.scripts.verdict(answer(hands.run, "authorization", "refuse"))
    await clock.advance(999)
    assert await hands.state() == "ended" and len(await world.runs.frames(hands.run, 0, 0, 9)) == 1
    await clock.advance(1)
    assert await hands.state() == "" and await world.runs.frames(hands.run, 0, 0, 9) == []


async def test_live_run_never_expires(clock: BentClock, world: MemoryWorld) -> None:
    hands = Hands(world)
    await hands.accept()
    await clock.advance(10**9)
    assert await hands.state() == "checking"


async def test_entry_falls_idle_by_the_clock_alone(clock: BentClock, world: MemoryWorld) -> None:
    hands = Hands(world)
    await hands.accept()
    groups = MemoryGroups(world.server)
    await groups.ensure(hands.requests, "rules")
    (row,) = await groups.read([hands.requests], "rules", "c1", 10, 0)
    await clock.advance(499)
    assert await groups.idle(hands.requests, "rules", 500, 10) == []
    await clock.advance(1)
    assert await groups.idle(hands.requests, "rules", 500, 10) == [row.entry]


async def test_blocked_read_ends_by_an_entry_by_unblock_or_by_time(clock: BentClock, world: MemoryWorld) -> None:
    groups = MemoryGroups(world.server)
    await groups.ensure("commands", "g")

    async def blocked() -> asyncio.Task[int]:
        async def count() -> int:
            return len(await groups.read(["commands"], "g", "c1", 10, 5_000))

        task = asyncio.create_task(count())
        await clock.advance(0)
        assert not task.done()
        return task

    by_entry = await blocked()
    await world.add("commands", {"e": b"x"})
    assert await by_entry == 1
    by_unblock = await blocked()
    await groups.unblock()
    assert await by_unblock == 0
    by_time = await blocked()
    await clock.advance(5_000)
    assert await by_time == 0


async def test_server_that_is_away_is_unavailable_and_keeps_everything(world: MemoryWorld) -> None:
    hands = Hands(world)
    await hands.accept()
    world.server.away = True
    with pytest.raises(Unavailable):
        await world.runs.fields(hands.run)
    with pytest.raises(Unavailable):
        await world.scripts.accept(acceptance(hands.run))
    world.server.away = False
    assert await hands.state() == "checking"


async def test_ids_rise_even_when_the_clock_stands_or_goes_back(clock: BentClock, world: MemoryWorld) -> None:
    first, second = [await world.add("s", {"e": b"x"}) for _ in range(2)]
    await clock.advance(-60_000)
    third = await world.add("s", {"e": b"x"})
    born = clock.now_ms() + 60_000
    assert [first, second, third] == [f"{born}-0", f"{born}-1", f"{born}-2"]


async def test_deadlines_follow_the_clock(clock: BentClock, world: MemoryWorld) -> None:
    hands = Hands(world)
    await hands.queue()
    await clock.advance(59_000)
    (entry,) = await world.pending(hands.lane, "router")
    claim = await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
    assert claim.left_ms == 1_000 and set(claim.fields) >= {f"v:{family}" for family in FAMILIES}


@given(st.integers(0, 12), st.integers(1, 20), st.integers(0, 1_000))
def test_one_read_never_asks_for_more_than_the_free_slots(streams: int, free: int, turn: int) -> None:
    names = [f"s{n}" for n in range(streams)]
    chosen, each, block = share(names, free, turn)
    assert len(chosen) * each <= max(free, 0) or not chosen
    assert set(chosen) <= set(names) and len(set(chosen)) == len(chosen) and each >= 1 and block > 0


@given(st.integers(2, 12), st.integers(1, 11))
def test_every_stream_gets_its_turn(streams: int, free: int) -> None:
    names = [f"s{n}" for n in range(streams)]
    read = {name for turn in range(streams) for name in share(names, free, turn)[0]}
    assert read == set(names)


def test_fault_is_read_from_its_text() -> None:
    fault = parse("router:P2:3:hang")
    assert fault is not None
    assert (fault.stage, fault.point, fault.nth, fault.kind) == ("router", "P2", 3, "hang")
    assert parse("") is None
    with pytest.raises(ValueError, match="exit, hang or raise"):
        parse("router:P2:3:explode")
