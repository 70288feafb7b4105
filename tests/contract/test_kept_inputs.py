"""The input of a response outlives its run until the archive has it; a deleted answer is kept by nobody."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from runtime.keeping import Keeping
from schemas.errors import Refusal
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.frames import ERROR, encode_failure
from schemas.ports import Watch
from tests.once_support import BROKEN, DAY_MS, Place, make_place
from tests.run_support import Hands, World, answer


@pytest_asyncio.fixture
async def place(world: World) -> Place:
    return make_place(world)


async def asked(place: Place, **changes: Any) -> Watch:
    """A response that was accepted."""
    return await place.door.accept(place.new(None, route="/v1/responses", keep_body=True, **changes))


async def test_the_input_is_there_while_it_runs_and_after_its_end_until_it_is_kept_elsewhere(place: Place) -> None:
    watch = await asked(place)
    assert await place.door.body(watch.run) == b"{}"
    await place.complete(watch)
    hands, keeping = Hands(place.world, watch.run), Keeping(place.world.runs, place.world.scripts)
    assert await place.world.body(watch.run) is None and await place.world.kept_bytes(hands.p) == 0
    assert await place.door.body(watch.run) == b"{}"
    assert await keeping.body(watch.run) == await place.world.runs.kept_body(watch.run)
    assert await keeping.let_go(watch.run)
    assert await place.door.body(watch.run) is None and await keeping.body(watch.run) == b""


@pytest.mark.parametrize("changes", [{"keep_ms": 0}, {"keep_body": False}])
async def test_an_input_that_is_not_to_be_kept_goes_with_the_end(place: Place, changes: dict[str, Any]) -> None:
    watch = await place.door.accept(place.new(None, **{"keep_body": True, **changes}))
    await place.complete(watch)
    assert await place.door.body(watch.run) is None


async def test_how_a_run_in_the_background_ended_is_kept_whatever_it_was(place: Place) -> None:
    ends = {}
    for background in (True, False):
        for fact in (RequestFailed, RequestCancelled):
            watch = await asked(place, background=background)
            await place.run(watch)
            said: dict[str, Any] = {"by": "client"} if fact is RequestCancelled else {"failure": BROKEN}
            await place.end(watch, 0, fact(run=watch.run, **said), ERROR, encode_failure(BROKEN))
            ends[watch.run] = background
    marked = {}
    for run in ends:
        for _, fields in await place.world.entries(Hands(place.world, run).facts):
            marked[fields[b"run"].decode()] = b"keep" in fields
    assert marked == ends
    for run, background in ends.items():
        assert (await place.world.runs.kept_body(run) is not None) == background


async def test_a_refused_run_in_the_background_keeps_nothing(place: Place) -> None:
    watch = await asked(place, background=True)
    await place.world.scripts.verdict(answer(watch.run, "authorization", "refuse"))
    assert await Hands(place.world, watch.run).state() == "ended"
    assert await place.world.runs.kept_body(watch.run) is None


async def test_a_run_in_the_background_goes_on_when_its_client_leaves(place: Place) -> None:
    watch = await asked(place, background=True, on_disconnect="finish")
    await place.run(watch)
    await watch.leave()
    hands = Hands(place.world, watch.run)
    assert await hands.state() == "running" and not await hands.field("cancel")
    await place.end(watch, 0, RequestCompleted(run=watch.run, model="m", endpoint="e", usage=Usage()))
    assert await hands.field("outcome") == "completed"


async def test_a_deleted_answer_is_kept_by_nobody(place: Place) -> None:
    watch = await asked(place)
    assert not await place.door.forget(watch.run)
    await place.complete(watch)
    keeping = Keeping(place.world.runs, place.world.scripts)
    assert await place.door.forget(watch.run) and await place.door.forget(watch.run)
    assert await keeping.frames(watch.run) == [] and await keeping.body(watch.run) == b""
    assert not await keeping.let_go(watch.run)
    status = await place.door.status(watch.run)
    assert status is not None and status.detail["deleted"] == "1"
    assert status.accepted is not None and status.accepted.route == "/v1/responses"
    assert status.accepted.keep_ms == DAY_MS
    reader = await place.door.attach(watch.run, 0)
    with pytest.raises(Refusal, match="deleted"):
        await reader.next(10)
