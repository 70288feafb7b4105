"""The input of a response outlives its run until the archive has it; a deleted answer is kept by nobody."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from runtime.keeping import Keeping
from runtime.names import prefix_of
from schemas.errors import Refusal
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.frames import ERROR, encode_failure
from schemas.ports import NewRun, Watch
from tests.engine_support import seals
from tests.once_support import BROKEN, DAY_MS, Place, make_place
from tests.run_support import CLOCK, Hands, World, answer, until


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
    hands, keeping = Hands(place.world, watch.run), Keeping(place.world.runs, place.world.scripts, seals("audit"))
    assert await place.world.body(watch.run) is None and await place.world.kept_bytes(hands.p) == 0
    assert await place.door.body(watch.run) == b"{}"
    assert await keeping.body(watch.run) == await place.world.runs.kept_body(watch.run)
    rewritten = await keeping.body(watch.run, lambda body: body + b" as the guards left it")
    assert seals("audit").open_body(watch.run, rewritten) == b"{} as the guards left it"
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


async def test_a_refused_run_in_the_background_is_kept_as_long_as_any(place: Place) -> None:
    watch = await asked(place, background=True)
    await place.world.scripts.verdict(answer(watch.run, "authorization", "refuse"))
    hands = Hands(place.world, watch.run)
    assert await hands.state() == "ended" and await place.door.body(watch.run) == b"{}"
    ((_, fact),) = await place.world.entries(hands.facts)
    assert int(fact[b"keep"]) == DAY_MS
    seen = await asked(place)
    await place.world.scripts.verdict(answer(seen.run, "authorization", "refuse"))
    assert await place.world.runs.kept_body(seen.run) is None


async def test_inputs_that_lie_aside_leave_no_room_for_more_of_them_until_they_are_gone(place: Place) -> None:
    first, second = await asked(place), await asked(place)
    hands, size = Hands(place.world, first.run), len(await place.world.body(first.run) or b"")
    for watch in (first, second):
        await place.complete(watch)
    other = Hands(place.world, second.run)
    assert await place.world.aside_bytes(hands.p) == size
    tight = place.tight(most_bytes=size + 1)

    def more(p: str, **changes: Any) -> NewRun:
        return next(new for _ in range(64) if prefix_of((new := place.new(None, **changes)).accepted.run) == p)

    with pytest.raises(Refusal) as caught:
        await tight.accept(more(hands.p, keep_body=True))
    assert caught.value.failure.code == "overloaded" and caught.value.failure.retry_after_ms
    assert (await tight.accept(more(hands.p))).run  # it puts nothing aside
    assert await Keeping(place.world.runs, place.world.scripts, seals("audit")).let_go(first.run)
    assert await place.door.forget(second.run)
    for p in (hands.p, other.p):
        assert await place.world.aside_bytes(p) == 0
    assert (await place.tight(most_bytes=2 * size).accept(more(hands.p, keep_body=True))).run


async def test_inputs_that_nobody_fetched_are_counted_out_when_they_have_expired(place: Place) -> None:
    watch = await asked(place, keep_ms=1)
    size, p = len(await place.world.body(watch.run) or b""), prefix_of(watch.run)
    await place.complete(watch)
    await until(partial(_gone, place, watch.run))
    new = next(new for _ in range(64) if prefix_of((new := place.new(None, keep_body=True)).accepted.run) == p)
    assert (await place.tight(most_bytes=size).accept(new)).run
    assert await place.world.aside_bytes(p) == 0


async def _gone(place: Place, run: str) -> bool:
    return await place.world.runs.kept_body(run) is None


async def test_what_went_out_is_told_to_whoever_asks_and_nobody_watches_for_it(place: Place) -> None:
    watch = await place.ask(route="/v1/responses")
    await place.run(watch)
    await place.say(watch)
    before = await Hands(place.world, watch.run).snapshot()
    assert [told async for told in place.door.told(watch.run)] == [b"data: a\n\n"]
    assert await Hands(place.world, watch.run).snapshot() == before
    await place.end(watch, 1, RequestCompleted(run=watch.run, model="m", endpoint="e", usage=Usage()))
    await place.keep(watch)
    kept = await place.archive.find("org", watch.run, CLOCK.now_ms())
    assert kept is not None
    await place.lose_frames(watch)
    assert [told async for told in place.door.told(kept)] == [b"data: a\n\n", b"data: end\n\n"]
    assert [told async for told in place.door.told(watch.run)] == []


async def test_an_error_is_no_part_of_what_went_out(place: Place) -> None:
    watch = await place.ask(route="/v1/responses")
    await place.run(watch)
    await place.say(watch)
    failed = RequestFailed(run=watch.run, failure=BROKEN)
    await place.end(watch, 1, failed, ERROR, encode_failure(BROKEN))
    assert [told async for told in place.door.told(watch.run)] == [b"data: a\n\n"]


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
    keeping = Keeping(place.world.runs, place.world.scripts, seals("audit"))
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
