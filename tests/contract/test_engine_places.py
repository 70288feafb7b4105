"""An engine with places by pool reads only what it has room for, and hears when room is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from runtime.places import Places, share
from schemas import envelope as wire
from schemas.events import RequestCleared
from schemas.outcomes import Delivery, Done, Outcome
from tests.engine_support import House, P
from tests.run_support import World, until

FULL, FREE = f"{P}:cleared:full:interactive", f"{P}:cleared:free:interactive"


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over each implementation in turn."""
    made = House(world)
    yield made
    await made.close()


class Held:
    """A handler that keeps each entry until its lane is let go."""

    def __init__(self) -> None:
        self.lanes: list[str] = []
        self.go: dict[str, asyncio.Event] = {FULL: asyncio.Event(), FREE: asyncio.Event()}

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        for delivery in deliveries:
            self.lanes.append(delivery.stream)
            await self.go[delivery.stream].wait()
        return [Done() for _ in deliveries]


async def put(world: World, lane: str, number: int) -> None:
    """An entry as the script writes it."""
    run = f"run-{number}"
    event = RequestCleared(run=run, pool="p", lane="interactive")
    await world.add(lane, {"e": wire.encode(event, id=run, by="script", run=run)})


async def reader(house: House, places: Places, held: Held, name: str = "r1") -> None:
    """A router's engine over both lanes."""
    await house.engine(held, name=name, stream="cleared", group="router", keys=(FULL, FREE), single=True, places=places)


async def test_entries_of_a_full_pool_stay_for_others_while_another_pool_is_served(house: House) -> None:
    places, held = Places(), Held()
    places.set({"full": 1, "free": 8})
    await reader(house, places, held)
    for number in range(3):
        await put(house.world, FULL, number)
        await until(lambda: held.lanes.count(FULL) == 1)
    held.go[FREE].set()
    for number in range(5):
        await put(house.world, FREE, 10 + number)
    await until(lambda: held.lanes.count(FREE) == 5)
    assert held.lanes.count(FULL) == 1 and await house.world.unread(FULL, "router") == 2
    other, theirs = Places(), Held()
    other.set({"full": 2})
    await reader(house, other, theirs, "r2")
    await until(lambda: theirs.lanes.count(FULL) == 2)
    held.go[FULL].set()
    theirs.go[FULL].set()


async def test_room_that_is_made_ends_the_read_that_waited_without_it(house: House) -> None:
    places, held = Places(), Held()
    places.set({"full": 1, "free": 1})
    await reader(house, places, held)
    for number in range(4):
        await put(house.world, FULL, number)
    await until(lambda: held.lanes == [FULL])
    held.go[FULL].set()
    await until(lambda: held.lanes.count(FULL) == 4, seconds=4.0)  # a blocked read would wait for five seconds


async def test_a_pool_that_gets_its_first_place_is_read_at_once(house: House) -> None:
    places, held = Places(), Held()
    places.set({"free": 1})
    await reader(house, places, held)
    await put(house.world, FULL, 1)
    held.go[FREE].set()
    await put(house.world, FREE, 2)
    await until(lambda: held.lanes == [FREE])
    places.set({"free": 1, "full": 1})
    await until(lambda: held.lanes == [FREE, FULL], seconds=4.0)
    held.go[FULL].set()


async def test_a_read_that_waits_for_a_pool_without_room_any_more_ends(house: House) -> None:
    """Else a router whose seat became smaller takes a run that another has room for, and keeps it."""
    places, held = Places(), Held()
    places.set({"full": 1, "free": 1})
    await reader(house, places, held)
    held.go[FREE].set()
    await put(house.world, FREE, 1)
    await until(lambda: held.lanes == [FREE] and not places.in_hand["free"])
    await until(lambda: set(house.engines[0]._reading.present) == {FULL, FREE})
    places.set({"full": 0, "free": 1})
    await until(lambda: list(house.engines[0]._reading.present) == [FREE], seconds=4.0)
    await put(house.world, FULL, 2)
    await put(house.world, FREE, 3)
    await until(lambda: held.lanes == [FREE, FREE])
    assert await house.world.unread(FULL, "router") == 1
    held.go[FULL].set()


async def test_a_read_that_waits_for_a_pool_that_another_read_has_filled_ends(house: House) -> None:
    """As among the partitions of one router: each has a read of its own, and they share the places."""
    places, held = Places(), Held()
    places.set({"full": 1, "free": 1})
    await reader(house, places, held)
    reading = house.engines[0]._reading
    await until(lambda: set(reading.present) == {FULL, FREE})
    places.take(FULL)
    places.set({"full": 1, "free": 1})
    await until(lambda: list(reading.present) == [FREE], seconds=4.0)
    places.give(FULL)
    await until(lambda: set(reading.present) == {FULL, FREE}, seconds=4.0)


async def test_what_a_dead_router_held_is_taken_over_only_with_room(house: House) -> None:
    for number in range(2):
        await put(house.world, FULL, number)
    await house.ghost("router", (FULL,))
    places, held = Places(), Held()
    places.set({"free": 1})
    await reader(house, places, held)
    await put(house.world, FREE, 9)
    held.go[FREE].set()
    await until(lambda: held.lanes == [FREE])
    assert set((await house.world.pending(FULL, "router")).values()) == {"ghost"}
    places.set({"full": 2})
    await until(lambda: held.lanes.count(FULL) == 2)
    held.go[FULL].set()


@pytest.mark.parametrize(("slots", "partitions", "part"), [(8, 1, 8), (8, 4, 4), (1, 4, 1), (3, 4, 2), (0, 4, 0)])
def test_partitions_are_promised_up_to_twice_their_even_share(slots: int, partitions: int, part: int) -> None:
    assert share(slots, partitions) == part


def test_the_lanes_of_a_pool_share_its_room() -> None:
    """Else a router would hold runs of both lanes that another one has room for."""
    places, lanes = Places(), ("{0}:cleared:a:interactive", "{0}:cleared:a:batch", "{0}:cleared:b:interactive")
    places.set({"a": 9, "b": 5})
    places.take(lanes[0])
    assert places.able(lanes) == (list(lanes), 4)
    places.set({"a": 2, "b": 5})
    assert places.able(lanes) == (list(lanes), 1), "one place: one of each lane"
    places.set({"a": 1, "b": 5})
    assert places.able(lanes) == ([lanes[2]], 5)
    places.set({})
    assert places.able(lanes) == ([], 0)
