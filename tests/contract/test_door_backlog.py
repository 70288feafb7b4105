"""Whoever would wait past the deadline is told so at the door, at once; nobody is for want of a measure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from base import metrics
from base.clock import SystemClock
from runtime.door import Bounds, StreamDoor
from runtime.names import prefix, push_channel
from schemas.errors import Code, Failure, Refusal
from schemas.events import RequestFailed
from schemas.frames import ERROR, encode_failure
from schemas.ports import NewRun, Watch
from tests.engine_support import seals
from tests.once_support import OURS, Place, make_place, read
from tests.run_support import CHANCE, PARTITIONS, World

SOON, LATE = 20_000, 600_000


class Bent(SystemClock):
    """Spans are as long as the test says."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


class Busy:
    """A door before which 40 wait for one model, of whom one was answered each second for ten seconds."""

    def __init__(self, place: Place, clock: Bent, waiting: list[Watch]) -> None:
        self.place, self.clock, self.waiting = place, clock, waiting

    def new(self, deadline_ms: int, **changes: object) -> NewRun:
        return structs.replace(self.place.new(None, keep_ms=0, **changes), deadline_ms=deadline_ms)

    async def ask(self, deadline_ms: int, **changes: object) -> Watch:
        return await self.place.door.accept(self.new(deadline_ms, **changes))

    async def refusal(self, new: NewRun) -> Failure:
        before = self.place.door.hub.live
        with pytest.raises(Refusal) as caught:
            await self.place.door.accept(new)
        assert self.place.door.hub.live == before
        return caught.value.failure


def counted(limit: str) -> float:
    name = f'headrace_limit_rejections_total{{limit="{limit}"}} '
    text = metrics.exposition().decode()
    return next((float(row.removeprefix(name)) for row in text.splitlines() if row.startswith(name)), 0.0)


async def line(world: World, most_wait: float = 0.75, *, expired: bool = False) -> Busy:
    place, clock = make_place(world), Bent()
    place.door = StreamDoor(
        "door", PARTITIONS, world.scripts, world.runs, seals("ingress"), clock, CHANCE, Bounds(most_wait=most_wait)
    )
    hub = place.door.hub
    await world.push.listen(
        [push_channel(prefix(number), "door") for number in range(PARTITIONS)], hub.hear, hub.missed
    )
    busy = Busy(place, clock, [])
    busy.waiting = [await busy.ask(LATE) for _ in range(40)]
    for second in range(1, 11):
        clock.at = float(second)
        watch = busy.waiting.pop(0)
        if expired:
            await place.run(watch)
            failure = Failure(code=Code.deadline_exceeded.value, message="too late")
            fact = RequestFailed(run=watch.run, failure=failure)
            await place.end(watch, 0, fact, ERROR, encode_failure(failure))
        else:
            await place.complete(watch)
        await read(watch)
    return busy


async def test_a_run_that_would_end_past_its_deadline_is_refused_before_anything_is_stored(world: World) -> None:
    busy = await line(world)
    stored = [len(await world.entries(f"{prefix(number)}:requests")) for number in range(PARTITIONS)]
    failure = await busy.refusal(busy.new(SOON))
    assert (
        failure.code == "overloaded"
        and "31 s" in failure.message
        and "20 s" in failure.message
        and "15 s" in failure.message
    )
    assert 10_000 <= (failure.retry_after_ms or 0) <= 40_000  # 31 s expected, 15 s allowed, up to twice as long
    assert [len(await world.entries(f"{prefix(number)}:requests")) for number in range(PARTITIONS)] == stored


async def test_refusals_are_counted_apart_by_their_reason(world: World) -> None:
    busy = await line(world)
    wait, live = counted("wait"), counted("live")
    await busy.refusal(busy.new(SOON))
    assert (counted("wait"), counted("live")) == (wait + 1, live)
    busy.place.door = StreamDoor(
        "full", PARTITIONS, world.scripts, world.runs, seals("ingress"), busy.clock, CHANCE, Bounds(most_runs=1)
    )
    failure = await busy.refusal(busy.new(LATE))
    assert failure.code == "overloaded" and "bound" in failure.message
    assert (counted("wait"), counted("live")) == (wait + 1, live + 1)


async def test_whoever_has_more_time_another_model_or_another_key_is_let_in(world: World) -> None:
    busy = await line(world)
    await busy.ask(LATE)
    await busy.ask(SOON, model="another")
    await busy.ask(SOON, key_id="another")


async def test_an_idempotency_key_that_has_a_run_is_shown_it_and_a_new_one_is_refused(world: World) -> None:
    busy = await line(world)
    first = structs.replace(busy.place.new(), deadline_ms=LATE)
    watch = await busy.place.door.accept(first)
    again = await busy.place.door.accept(structs.replace(first, deadline_ms=SOON))
    assert again.run == watch.run and again.replayed
    other = replace(OURS, marks=(replace(OURS.marks[0], name="other"),))
    failure = await busy.refusal(structs.replace(busy.place.new(other), deadline_ms=SOON))
    assert failure.code == "overloaded" and "deadline" in failure.message


async def test_when_those_before_it_left_there_is_room_again(world: World) -> None:
    busy = await line(world)
    for watch in busy.waiting[10:]:
        await watch.leave()
    await busy.ask(SOON)


async def test_an_operator_may_let_everybody_wait(world: World) -> None:
    busy = await line(world, most_wait=0)
    await busy.ask(1)


async def test_runs_that_expired_unserved_are_no_measure(world: World) -> None:
    busy = await line(world, expired=True)
    await busy.ask(SOON)
