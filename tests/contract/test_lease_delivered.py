"""What a new owner reads of the answer that an earlier one has sent, over both implementations."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from runtime.flushes import Flushes
from runtime.lease import Lease
from tests.engine_support import LANE_KEY, House, read_cleared, seals
from tests.run_support import CHANCE, CLOCK, World


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def _claimed(world: World, run: str, entry: str, consumer: str) -> Lease:
    owner = f"{consumer}:x"
    claim = await world.scripts.claim(run, LANE_KEY, entry, consumer, owner)
    hands = world.scripts, Flushes(world.scripts), world.runs, seals("router")
    return Lease(run, owner, claim, *hands, CLOCK, CHANCE)


async def test_new_owner_reads_all_that_was_sent_by_any_owner(world: World, house: House) -> None:
    run, entry = await read_cleared(world, house)
    first = await _claimed(world, run, entry, "r1")
    assert await first.delivered() == b""
    for number in range(300):  # more frames than one read brings
        await first.flush(b"data: %d\n\n" % number, 1)
    await first.flush(b"data: a\n\ndata: b\n\n", 2)
    await world.scripts.take(LANE_KEY, "router", "r2", 0, entry)
    second = await _claimed(world, run, entry, "r2")
    await second.flush(b"data: c\n\n", 1)
    told = await second.delivered()
    assert told is not None and told.count(b"\n\n") == second.sequence == 303
    assert told.endswith(b"data: 299\n\ndata: a\n\ndata: b\n\ndata: c\n\n")


async def test_stream_with_a_hole_is_not_taken_for_the_whole(world: World, house: House) -> None:
    run, entry = await read_cleared(world, house)
    lease = await _claimed(world, run, entry, "r1")
    await lease.flush(b"data: a\n\n", 1)
    lease.sequence = 2  # one more was sent than the stream holds
    assert await lease.delivered() is None
