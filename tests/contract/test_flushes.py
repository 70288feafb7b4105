"""Frames that leave together, and a lease that offers one without waiting: the same on a server and on the twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from runtime.flushes import Flushes
from runtime.lease import Lease
from runtime.scripts import Scripts, Write
from runtime.wire import ServerError
from schemas.errors import OwnerLost, Unavailable
from tests.engine_support import LANE_KEY, House, read_cleared, seals
from tests.run_support import CHANCE, CLOCK, Hands, RedisWorld, World, ending, frame, until


class Counted:
    """The scripts of a world; `calls` has how many frames each call carried. `away`: nobody answers."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.calls: list[int] = []
        self.away = self.deaf = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scripts, name)

    async def flush(self, writes: Sequence[Write]) -> list[str]:
        self.calls.append(len(writes))
        if self.away:
            raise Unavailable("nobody there")
        words = await self._scripts.flush(writes)
        if self.deaf:
            raise Unavailable("the reply was lost")
        return words


async def _owned(world: World, count: int) -> list[Hands]:
    made = [Hands(world) for _ in range(count)]
    for one in made:
        await one.own()
    return made


async def test_frames_that_come_while_others_just_left_leave_together(world: World) -> None:
    scripts = Counted(world.scripts)
    flushes, runs = Flushes(scripts), await _owned(world, 4)
    assert await flushes.store(Write(runs[0].run, "r1:a", 1, 1, frame("x"))) == "ok"
    rest = [flushes.store(Write(one.run, "r1:a", 1, 1, frame("x"))) for one in runs[1:]]
    assert await asyncio.gather(*rest) == ["ok"] * 3
    assert scripts.calls == [1, 3]


async def test_a_frame_that_cannot_wait_takes_with_it_those_that_can(world: World) -> None:
    scripts, words = Counted(world.scripts), list[str | Exception]()
    flushes, runs = Flushes(scripts), await _owned(world, 3)
    await flushes.store(Write(runs[0].run, "r1:a", 1, 1, frame("x")))
    flushes.add(Write(runs[1].run, "r1:a", 1, 1, frame("x")), words.append)
    flushes.add(Write(runs[2].run, "r1:a", 1, 1, frame("x")), words.append, at_once=True)
    await until(lambda: words == ["ok", "ok"])
    assert scripts.calls == [1, 2]


async def test_everybody_hears_that_the_server_is_away_and_may_try_again(world: World) -> None:
    scripts = Counted(world.scripts)
    flushes, runs = Flushes(scripts), await _owned(world, 2)
    scripts.away = True
    writes = [Write(one.run, "r1:a", 1, 1, frame("x")) for one in runs]
    told = await asyncio.gather(*(flushes.store(write) for write in writes), return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable, Unavailable]
    scripts.away = False
    assert await asyncio.gather(*(flushes.store(write) for write in writes)) == ["ok", "ok"]


async def test_a_run_that_the_server_refuses_hears_it_alone(world: World) -> None:
    flushes, (broken, whole) = Flushes(world.scripts), await _owned(world, 2)
    if not isinstance(world, RedisWorld):
        return
    await world.redis.execute("SET", broken.reply, "no stream")
    told = await asyncio.gather(
        *(flushes.store(Write(one.run, "r1:a", 1, 1, frame("x"))) for one in (broken, whole)), return_exceptions=True
    )
    assert isinstance(told[0], ServerError) and "WRONGTYPE" in str(told[0]) and told[1] == "ok"


async def test_one_that_cannot_hear_its_word_keeps_nobody_else_from_theirs(world: World) -> None:
    flushes, runs, words = Flushes(world.scripts), await _owned(world, 2), list[str | Exception]()

    def fails(word: str | Exception) -> None:
        raise RuntimeError("in a callback")

    flushes.add(Write(runs[0].run, "r1:a", 1, 1, frame("x")), fails)
    flushes.add(Write(runs[1].run, "r1:a", 1, 1, frame("x")), words.append)
    await until(lambda: words == ["ok"])


# --- a lease that offers --------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    made = House(world)
    yield made
    await made.close()


async def _leased(world: World, house: House, scripts: Counted) -> Lease:
    run, entry = await read_cleared(world, house)
    claim = await world.scripts.claim(run, LANE_KEY, entry, "r1", "r1:x")
    hands = scripts, Flushes(scripts), world.runs, seals("router")
    return Lease(run, "r1:x", claim, *hands, CLOCK, CHANCE)


async def _offered(lease: Lease, text: bytes) -> bool:
    told: list[bool] = []
    lease.offer(text, 1, told.append, said=9)
    await until(lambda: told)
    return told[0]


async def test_an_offered_frame_lies_behind_the_one_before_it(world: World, house: House) -> None:
    lease = await _leased(world, house, Counted(world.scripts))
    await lease.flush(b"data: a\n\n", 1)
    assert await _offered(lease, b"data: b\n\n") and await _offered(lease, b"data: c\n\n")
    assert lease.sequence == 3 and await lease.delivered() == b"data: a\n\ndata: b\n\ndata: c\n\n"


@pytest.mark.parametrize("stored", [False, True])
async def test_an_offer_without_a_word_is_repeated_and_stored_once(world: World, house: House, stored: bool) -> None:
    scripts = Counted(world.scripts)
    lease = await _leased(world, house, scripts)
    await lease.flush(b"data: a\n\n", 1)
    scripts.deaf, scripts.away = stored, not stored
    assert not await _offered(lease, b"data: b\n\n") and lease.sequence == 1
    scripts.deaf = scripts.away = False
    await lease.flush(b"data: b\n\n", 1, said=9)
    assert lease.sequence == 2 and await lease.delivered() == b"data: a\n\ndata: b\n\n"


async def test_an_offer_to_a_run_of_another_is_not_stored_and_the_repeat_says_why(world: World, house: House) -> None:
    lease = await _leased(world, house, Counted(world.scripts))
    await lease.flush(b"data: a\n\n", 1)
    await world.scripts.end(
        lease.run, "owner", "r1:x", "1-1", frame("end", kind="end"), ending("RequestCompleted", lease.run)
    )
    assert not await _offered(lease, b"data: b\n\n")
    with pytest.raises(OwnerLost):
        await lease.flush(b"data: b\n\n", 1, said=9)
    assert lease.cancelled.is_set() and not await _offered(lease, b"data: b\n\n")


async def test_an_offer_hears_of_a_cancel_and_is_stored_all_the_same(world: World, house: House) -> None:
    lease = await _leased(world, house, Counted(world.scripts))
    await lease.flush(b"data: a\n\n", 1)
    assert await world.scripts.cancel(lease.run, "client") == "flagged"
    assert await _offered(lease, b"data: b\n\n")
    assert lease.cancelled.is_set() and lease.sequence == 2
