"""A router that lost its run leaves it, and the entry that leads to it, to whoever has it now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.errors import OwnerLost
from schemas.events import RequestCompleted, Usage
from schemas.frames import END
from schemas.ports import RunLease
from tests.engine_support import LANE_KEY, House
from tests.run_support import FAMILIES, World, answer, until


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def _cleared(house: House) -> str:
    run = await house.accept()
    for family in FAMILIES:
        await house.world.scripts.verdict(answer(run, family))
    return run


async def _steal(world: World) -> str:
    """As by another router after this one was frozen; the entry."""
    (entry,) = await world.pending(LANE_KEY, "router")
    assert (await world.scripts.take(LANE_KEY, "router", "thief", 0, entry)).state == "taken"
    return entry


def _completed(lease: RunLease) -> RequestCompleted:
    return RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage(prompt_tokens=1))


async def test_redelivered_run_that_is_lost_again_is_not_acknowledged_by_its_loser(world: World, house: House) -> None:
    served, left = asyncio.Event(), asyncio.Event()

    async def serve(lease: RunLease) -> None:
        served.set()
        await lease.cancelled.wait()
        left.set()  # as the router's handler: OwnerLost is swallowed, nothing more is written

    run = await _cleared(house)
    await house.ghost("router", [LANE_KEY])
    engine = await house.router(serve, idle_ms=600)
    await asyncio.wait_for(served.wait(), 20)
    entry = await _steal(world)
    await world.scripts.claim(run, LANE_KEY, entry, "thief", "thief:x")
    await asyncio.wait_for(left.wait(), 20)
    await until(lambda: not engine.in_hand and not [t for t in engine._tasks if not t.done()])
    assert await world.pending(LANE_KEY, "router") == {entry: "thief"}
    assert await world.starts(LANE_KEY, "router") == {entry: 2}


async def test_run_whose_entry_was_taken_but_not_yet_claimed_is_not_ended_by_its_loser(
    world: World, house: House
) -> None:
    refused = asyncio.Event()

    async def serve(lease: RunLease) -> None:
        await lease.cancelled.wait()
        with pytest.raises(OwnerLost):
            await lease.end(END, b"x", 1, _completed(lease))
        refused.set()

    async def running() -> bool:
        return (await world.runs.fields(run))["state"] == b"running"

    run = await _cleared(house)
    await house.router(serve, idle_ms=600)
    await until(running)
    await _steal(world)
    await asyncio.wait_for(refused.wait(), 20)
    assert await running()
