"""A reader of /v1/streams that is cut for taking nothing has left: the run's policy decides what follows."""

from __future__ import annotations

import asyncio

import pytest

from base.health import Health
from ingress.routes.streams import _events
from tests.contract.test_run_watch import SEALS, _make_door, _owned
from tests.run_support import World


@pytest.mark.parametrize("draining", [False, True])
async def test_reader_that_is_cut_has_left_unless_its_ingress_goes(world: World, draining: bool) -> None:
    door = await _make_door(world, "door")
    owner = await _owned(world, door)
    frame = SEALS.frame(owner.run, owner.epoch, 1, "data", 1, b"data: x\n\n", None)
    assert await world.scripts.flush(owner.run, owner.owner, 1, frame) == "ok"
    reader = await door.attach(owner.run, 0)
    await owner.watch.leave()
    health = Health("ingress")
    events = _events(reader, True, 0, health)
    assert await asyncio.wait_for(anext(events), 10) == b"id: 1\ndata: x\n\n"
    health.draining = draining
    await events.aclose()  # type: ignore[attr-defined]
    assert ("cancel" in await world.runs.fields(owner.run)) is not draining
