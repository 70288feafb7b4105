"""What must not end an engine's loops, and what must not keep a reader waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest_asyncio

from tests.contract.test_run_watch import _make_door, _owned
from tests.engine_support import REQUESTS, House, Seen
from tests.run_support import World, until


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def test_name_of_a_stream_that_cannot_be_is_not_the_end_of_its_group(world: World, house: House) -> None:
    """A pool's name comes from the catalog, which anybody newer may have written."""
    asked: list[int] = []

    def streams() -> Sequence[str]:
        asked.append(1)
        if len(asked) in (2, 3):
            raise ValueError("not a pool's name")
        return (REQUESTS,)

    seen = Seen()
    engine = await house.engine(seen, start=False)
    engine.streams = streams
    await engine.start()
    await until(lambda: len(asked) > 3)
    run = await house.accept()
    await until(lambda: seen.runs == [run])
    assert not [loop for loop in engine._loops if loop.done()]


async def test_reader_who_is_ahead_of_the_run_is_told_its_end(world: World) -> None:
    door = await _make_door(world, "door")
    owner = await _owned(world, door)
    await owner.flush()
    watch = await door.attach(owner.run, 99)
    await owner.end()
    frame = await watch.next(10.0)
    assert frame is not None and (frame.kind, frame.sequence) == ("end", 2)


async def test_impatient_reader_finds_a_frame_whose_push_was_lost(world: World) -> None:
    door = await _make_door(world, "deaf", deaf=True)
    owner = await _owned(world, door)
    assert await owner.watch.next(0.05) is None
    await owner.flush()
    got: list[int] = []

    async def looked() -> bool:
        frame = await owner.watch.next(0.05)
        got.extend([frame.sequence] if frame else [])
        return bool(got)

    await until(looked)
    assert got == [1]
