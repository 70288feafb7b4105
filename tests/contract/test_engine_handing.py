"""A run that its checkers' process also routes is taken in the step that clears it, over both implementations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest_asyncio

from runtime.claims import Moved, Taker
from schemas.errors import Unavailable
from schemas.events import RequestCompleted, Usage
from schemas.frames import END
from schemas.ports import RunLease
from tests.engine_support import LANE_KEY, House
from tests.handing_support import Counted, ended, judge, process, said
from tests.run_support import POOL, Hands, World, until, verdicts

TAKER = Taker(consumer="c1", owner="c1:a", pool=POOL)


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def test_the_step_that_clears_a_run_delivers_and_claims_it(world: World, hands: Hands) -> None:
    await hands.accept()
    moved, state, handed = await verdicts(world.scripts, said(hands.run), TAKER)
    assert (moved, state) == (True, "running") and handed is not None and handed.claim is not None
    assert handed.entry == await hands.field("entry")
    assert await world.pending(hands.lane, "router") == {handed.entry: "c1"}
    assert await world.unread(hands.lane, "router") == 0
    claim = await world.scripts.claim(hands.run, hands.lane, handed.entry, "c1", "c1:a")
    assert claim.state == "ok" and (claim.epoch, claim.sequence, claim.body) == (1, 0, handed.claim.body)
    assert handed.claim.fields.keys() <= claim.fields.keys() and handed.claim.left_ms >= claim.left_ms
    assert await hands.flush(1, owner="c1:a") == "ok"


async def test_asked_again_the_same_owner_has_the_same_claim_and_another_none(world: World, hands: Hands) -> None:
    await hands.accept()
    first = (await verdicts(world.scripts, said(hands.run), TAKER)).handed
    again = await verdicts(world.scripts, said(hands.run), TAKER)
    assert first is not None and first.claim is not None and again.handed is not None
    assert (again.moved, again.state) == (False, "running") and again.handed.envelope == first.envelope
    assert again.handed.entry == first.entry and again.handed.claim is not None and again.handed.claim.epoch == 1
    other = Taker(consumer="c1", owner="c1:b", pool=POOL)
    assert await verdicts(world.scripts, said(hands.run), other) == Moved(False, "running")


async def test_nothing_is_handed_over_that_is_refused_or_of_another_pool(world: World) -> None:
    refused, elsewhere = Hands(world), Hands(world)
    await refused.accept()
    await elsewhere.accept()
    assert await verdicts(world.scripts, said(refused.run, "rules"), TAKER) == Moved(True, "ended")
    other = Taker(consumer="c1", owner="c1:a", pool="another")
    assert await verdicts(world.scripts, said(elsewhere.run), other) == Moved(True, "queued")
    assert await world.unread(elsewhere.lane, "router") == 1


async def test_a_run_that_must_wait_at_the_gate_is_not_handed_over(world: World, hands: Hands) -> None:
    await hands.accept()
    await hands.announce(slots=0)
    assert await verdicts(world.scripts, said(hands.run), TAKER) == Moved(True, "queued")
    assert await world.pending(hands.lane, "router") == {}


async def test_what_lies_before_a_run_is_handed_over_first(world: World) -> None:
    earlier, later = Hands(world), Hands(world)
    await earlier.clear()
    await later.accept()
    moved, state, handed = await verdicts(world.scripts, said(later.run), TAKER)
    assert (moved, state) == (True, "queued") and handed is not None and handed.claim is None
    assert handed.entry == await earlier.field("entry") and earlier.run.encode() in handed.envelope
    assert await world.pending(later.lane, "router") == {handed.entry: "c1"}
    assert await world.unread(later.lane, "router") == 1


# --- in a process


class Served:
    """Runs that a router was given; it holds them until `go`."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.epochs: list[int] = []
        self.go = asyncio.Event()

    async def __call__(self, lease: RunLease) -> None:
        self.runs.append(lease.run)
        self.epochs.append(lease.epoch)
        await self.go.wait()
        fact = RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage(prompt_tokens=1))
        await lease.end(END, b"data: [DONE]\n\n", 1, fact)


async def test_a_process_serves_what_it_clears_without_a_read_or_a_claim(world: World, house: House) -> None:
    scripts, served = Counted(world), Served()
    served.go.set()
    joint, engine = await process(house, scripts, served, 8)
    runs = [await house.accept() for _ in range(3)]
    assert [await judge(joint, run) for run in runs] == [[(True, "running")] * 3] * 3
    for run in runs:
        await until(partial(ended, world, run))
    assert served.runs == runs and served.epochs == [1, 1, 1] and "claim" not in scripts.calls
    await until(lambda: engine.in_hand == 0)
    assert await world.pending(LANE_KEY, "router") == {} and await world.entries(LANE_KEY) == []


async def test_a_lost_reply_is_asked_for_again_and_the_run_is_served_once(world: World, house: House) -> None:
    scripts, served = Counted(world, lost=1), Served()
    served.go.set()
    joint, _ = await process(house, scripts, served, 8)
    run = await house.accept()
    answers = await asyncio.gather(*(joint.tell([one]) for one in said(run)), return_exceptions=True)
    assert [type(each) for each in answers] == [Unavailable] * 3
    await judge(joint, run)
    await until(lambda: ended(world, run))
    assert served.epochs == [1]


async def test_no_more_is_handed_over_than_there_are_places_beside_the_read(world: World, house: House) -> None:
    scripts, served = Counted(world), Served()
    joint, engine = await process(house, scripts, served, 4)
    runs = [await house.accept() for _ in range(6)]
    for run in runs:
        await judge(joint, run)
    await until(lambda: len(served.runs) == 4)
    assert engine.in_hand == 4 and await world.unread(LANE_KEY, "router") == 2
    served.go.set()
    for run in runs:
        await until(partial(ended, world, run))
    assert sorted(served.runs) == sorted(runs) and served.epochs == [1] * 6


async def test_where_another_router_lives_whoever_is_idle_takes_the_run(world: World, house: House) -> None:
    scripts, served = Counted(world), Served()
    served.go.set()
    joint, engine = await process(house, scripts, served, 4)
    assert engine.places is not None
    engine.places.others = 1
    run = await house.accept()
    assert await judge(joint, run) == [(True, "queued")] * 3
    await until(lambda: ended(world, run))
    assert "claim" in scripts.calls


async def test_an_engine_that_stops_is_handed_nothing_more(world: World, house: House) -> None:
    scripts, served = Counted(world), Served()
    joint, engine = await process(house, scripts, served, 8)
    house.engines.remove(engine)
    await engine.stop(0.05)
    run = await house.accept()
    assert await judge(joint, run) == [(True, "queued")] * 3
    assert await world.unread(LANE_KEY, "router") == 1 and served.runs == []


async def test_an_engine_that_stops_waits_for_what_is_on_its_way(world: World, house: House) -> None:
    scripts, served = Counted(world), Served()
    served.go.set()
    joint, engine = await process(house, scripts, served, 8)
    run = await house.accept()
    scripts.reply.clear()
    answers = asyncio.ensure_future(judge(joint, run))
    await until(lambda: _is_running(world, run))
    house.engines.remove(engine)
    stopping = asyncio.ensure_future(engine.stop(5))
    await until(lambda: engine._loops[0].done())
    scripts.reply.set()
    await stopping
    assert await answers == [(True, "running")] * 3
    assert await ended(world, run) and engine.in_hand == 0


async def _is_running(world: World, run: str) -> bool:
    return (await world.runs.fields(run)).get("state") == b"running"
