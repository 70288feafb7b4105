"""A reader of /v1/streams that is cut for taking nothing has left: the run's policy decides what follows."""

from __future__ import annotations

import asyncio

import pytest

from base.health import Health
from ingress.reading import events_behind
from ingress.routes.streams import numbers
from schemas.errors import Unavailable
from schemas.frames import DATA, END, Frame
from schemas.ports import Direct
from tests.contract.test_run_watch import SEALS, _make_door, _owned
from tests.run_support import World, store_frame


@pytest.mark.parametrize("draining", [False, True])
async def test_reader_that_is_cut_has_left_unless_its_ingress_goes(world: World, draining: bool) -> None:
    door = await _make_door(world, "door")
    owner = await _owned(world, door)
    frame = SEALS.frame(owner.run, owner.epoch, 1, "data", 1, b"data: x\n\n", None)
    assert await store_frame(world.scripts, owner.run, owner.owner, 1, frame) == "ok"
    reader = await door.attach(owner.run, 0)
    await owner.watch.leave()
    health = Health("ingress")
    events = events_behind(reader, 0, numbers(True, 0), health)
    assert await asyncio.wait_for(anext(events), 10) == b"id: 1\ndata: x\n\n"
    health.draining = draining
    await events.aclose()  # type: ignore[attr-defined]
    assert ("cancel" in await world.runs.fields(owner.run)) is not draining


class Patchy:
    """A watch of a run that Redis does not show for a while. Implements schemas.ports.Watch."""

    run, replayed = "r", False
    direct: Direct | None = None

    def __init__(self, *seen: Frame | None) -> None:
        self._seen = iter(seen)

    async def next(self, timeout: float) -> Frame | None:
        if (frame := next(self._seen)) is None:
            raise Unavailable("Redis is away")
        return frame

    async def leave(self, reason: str = "left") -> None: ...

    def close(self) -> None: ...


def _frame(sequence: int, kind: str) -> Frame:
    return Frame(epoch=1, sequence=sequence, kind=kind, events=1, payload=b"data: x\n\n", headers={})


@pytest.mark.parametrize(("late", "seen"), [(False, 2), (True, 1)])
async def test_reader_outlasts_an_outage_until_the_run_must_have_ended(late: bool, seen: int) -> None:
    watch = Patchy(_frame(1, DATA), None, None, _frame(2, END))
    said = [event async for event in events_behind(watch, 0, numbers(True, 0), Health("ingress"), lambda: late)]
    assert sum(event.startswith(b"id: ") for event in said) == seen
    assert any(b"store_unavailable" in event for event in said) is late
