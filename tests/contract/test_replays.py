"""What was said and signed once is no more when it is said again: a replayed acceptance moves no run twice, wherever
the run stands, and is no poison either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from schemas.events import RequestCompleted, Usage
from schemas.frames import END
from schemas.ports import RunLease
from tests.contract.test_engine_leases import _answer, _ask, _door, _family
from tests.engine_support import FACTS, LANE_KEY, REQUESTS, House, P
from tests.run_support import FAMILIES, World, until


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


@pytest.mark.parametrize("when", ["checking", "ended"])
async def test_replayed_acceptance_moves_no_run_twice(world: World, house: House, when: str) -> None:
    served: list[str] = []

    async def serve(lease: RunLease) -> None:
        served.append(lease.run)
        fact = RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage(prompt_tokens=1))
        await lease.end(END, b"data: [DONE]\n\n", 1, fact)

    watch = await _ask(await _door(world))
    if when == "checking":
        await replay(world)
    for family in FAMILIES:
        await house.engine(_family(family), group=family)
    await house.router(serve)
    await _answer(watch)
    if when == "ended":
        await replay(world)
    for family in FAMILIES:
        await until(partial(house.settled, family))
    assert served == [watch.run] and len(await world.entries(FACTS)) == 1
    assert await house.reasons() == [] and await world.entries(LANE_KEY) == []
    assert await world.live(P) == {} and await world.kept_bytes(P) == 0


async def replay(world: World) -> None:
    """Everything on `requests` once more, under new ids."""
    for _, fields in await world.entries(REQUESTS):
        await world.add(REQUESTS, {name.decode(): value for name, value in fields.items()})
