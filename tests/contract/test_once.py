"""An Idempotency-Key has one run, whoever asks, whatever was lost; refusals and what never began leave nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import pytest_asyncio

from runtime.door import Bounds
from runtime.names import prefix
from schemas.errors import Code, Refusal, Unavailable
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.frames import ERROR, encode_failure
from schemas.ports import Mark, Once
from schemas.records import ArchiveRecord
from storage.memory import MemoryArchive
from tests.once_support import BROKEN, DAY_MS, OURS, Place, make_place, read
from tests.run_support import (
    CLOCK,
    RETENTION_MS,
    Hands,
    MemoryWorld,
    RedisWorld,
    World,
    answer,
    until,
)
from tests.storage_support import request as row


@pytest_asyncio.fixture
async def place(world: World) -> Place:
    """A door in a world where nobody has asked before."""
    return make_place(world)


async def test_the_second_request_watches_the_run_of_the_first_from_its_start(place: Place) -> None:
    first = await place.ask()
    await place.run(first)
    await place.say(first)
    second = await place.ask()
    assert (first.replayed, second.replayed, second.run) == (False, True, first.run)
    await place.end(first, 1, RequestCompleted(run=first.run, model="m", endpoint="e", usage=Usage()))
    assert await read(second) == await read(await place.door.attach(first.run, 0))


async def test_of_twenty_at_once_one_starts_the_run(place: Place) -> None:
    watches = await asyncio.gather(*(place.ask() for _ in range(20)))
    assert len({watch.run for watch in watches}) == 1
    assert sorted(watch.replayed for watch in watches) == [False] + [True] * 19
    assert len(await place.world.entries(f"{prefix(2)}:requests")) == 1
    hands = Hands(place.world, watches[0].run)
    assert len((await hands.field("watchers")).split()) == 20


async def test_an_ended_run_is_replayed_and_starts_nothing(place: Place) -> None:
    first = await place.ask()
    await place.complete(first)
    frames = await read(await place.ask())
    assert [frame.payload for frame in frames] == [b"data: a\n\n", b"data: end\n\n"]
    assert await place.world.live(prefix(2)) == {}


async def test_another_request_under_the_key_is_refused(place: Place) -> None:
    await place.ask()
    with pytest.raises(Refusal) as refused:
        await place.ask(Once(marks=(Mark("name", "something else"),), spread=2, tenant="org"))
    assert refused.value.failure.code == Code.idempotency_key_reused


async def test_a_refused_run_is_not_remembered_and_the_next_has_another_id(place: Place) -> None:
    first = await place.ask()
    await place.world.scripts.verdict(answer(first.run, "authorization", "refuse"))
    assert await Hands(place.world, first.run).field("outcome") == "refused"
    second = await place.ask(Once(marks=(Mark("name", "another body may follow"),), spread=2, tenant="org"))
    assert not second.replayed and second.run != first.run


@pytest.mark.parametrize(
    ("said", "usage", "remembered"), [(0, None, False), (1, None, True), (0, Usage(completion_tokens=3), True)]
)
async def test_a_failure_is_remembered_once_something_was_sent_or_billed(
    place: Place, said: int, usage: Usage | None, remembered: bool
) -> None:
    first = await place.ask()
    await place.run(first)
    if said:
        await place.say(first)
    fact = RequestFailed(run=first.run, failure=BROKEN, usage=usage)
    await place.end(first, said, fact, ERROR, encode_failure(BROKEN))
    second = await place.ask()
    assert second.replayed == remembered and (second.run == first.run) == remembered


async def test_a_cancelled_run_is_not_remembered(place: Place) -> None:
    first = await place.ask()
    await place.run(first)
    await place.say(first)
    await place.end(first, 1, RequestCancelled(run=first.run, by="client"), ERROR, encode_failure(BROKEN))
    assert not (await place.ask()).replayed


async def test_another_api_key_shares_nothing(place: Place) -> None:
    first = await place.ask()
    second = await place.ask(Once(marks=(Mark("of another", "asked"),), spread=2, tenant="org"))
    assert not second.replayed and second.run != first.run


async def test_a_key_is_known_by_every_key_of_the_ring(place: Place) -> None:
    first = await place.ask()
    rotated = Once(marks=(Mark("new name", "new asked"), *OURS.marks), spread=2, tenant="org")
    second = await place.ask(rotated)
    assert second.replayed and second.run == first.run


async def test_what_redis_no_longer_has_comes_from_the_archive(place: Place) -> None:
    first = await place.ask()
    await place.complete(first)
    before = await read(await place.ask())
    await place.keep(first)
    await place.lose_frames(first)
    again = await place.ask()
    assert again.replayed and await read(again) == before
    with pytest.raises(Refusal, match="another request"):
        await place.ask(Once(marks=(Mark("name", "something else"),), spread=2, tenant="org"))


async def test_an_answer_that_nobody_has_any_more_is_not_made_again(place: Place) -> None:
    first = await place.ask()
    await place.complete(first)
    await place.lose_frames(first)
    with pytest.raises(Refusal) as refused:
        await place.ask()
    assert refused.value.failure.should_retry is False
    assert await place.world.live(prefix(2)) == {}


async def test_a_redis_that_lost_everything_starts_no_archived_run_again(place: Place) -> None:
    first = await place.ask()
    await place.complete(first)
    before = await read(await place.ask())
    await place.keep(first)
    await place.world.flush_all()
    again = await place.ask()
    assert again.replayed and again.run == first.run and await read(again) == before


async def test_a_redis_that_lost_everything_reuses_no_id_of_a_refusal_on_record(place: Place) -> None:
    first = await place.ask()
    await place.world.scripts.verdict(answer(first.run, "authorization", "refuse"))
    refused = row(1, run=first.run, outcome="refused", prompt_tokens=0, completion_tokens=0)
    await place.requests.write([], [refused])
    await place.world.flush_all()
    again = await place.ask()
    assert not again.replayed and again.run != first.run


class Away(MemoryArchive):
    """PostgreSQL does not answer."""

    async def find_once(self, tenant: str, names: Sequence[str], now_ms: int) -> ArchiveRecord | None:
        raise Unavailable("PostgreSQL is away")


async def test_without_the_archive_nothing_starts_that_may_have_been_before(place: Place) -> None:
    door = place.another_door(Away(place.requests))
    with pytest.raises(Unavailable):
        await door.accept(place.new())
    assert await place.world.live(prefix(2)) == {}


async def test_once_redis_has_seen_all_that_is_kept_no_archive_is_needed_for_a_new_key(place: Place) -> None:
    await place.ask(keep_ms=1)
    await asyncio.sleep(0.005)  # longer than anything is kept
    door = place.another_door(Away(place.requests))
    other = Once(marks=(Mark("other", "asked"),), spread=2, tenant="org")
    assert not (await door.accept(place.new(other, keep_ms=1))).replayed


async def test_a_billed_run_without_a_kept_answer_is_run_again_under_its_own_id(place: Place) -> None:
    """Billed once: the record has its row already."""
    first = await place.ask()
    await place.complete(first)
    await place.requests.write([], [row(1, run=first.run)])
    await place.world.flush_all()
    assert (await place.ask()).run == first.run


async def test_frames_that_are_to_be_kept_outlive_others_until_the_archive_has_them(place: Place) -> None:
    plain = await place.door.accept(place.new(None, keep_ms=0))
    stored = await place.door.accept(place.new(None))
    for watch in (plain, stored):
        await place.complete(watch)
    facts = {}
    for run in (plain.run, stored.run):
        for _, fields in await place.world.entries(Hands(place.world, run).facts):
            facts[fields[b"run"].decode()] = fields.get(b"keep")
    assert facts == {plain.run: None, stored.run: str(DAY_MS).encode()}
    for key in (Hands(place.world, stored.run).reply, Hands(place.world, stored.run).hash):
        assert await _lasts_ms(place.world, key) > DAY_MS - 60_000
    assert await place.world.scripts.archived(stored.run)
    for run in (stored.run, plain.run):
        assert 0 < await _lasts_ms(place.world, Hands(place.world, run).reply) <= RETENTION_MS


async def _lasts_ms(world: World, key: str) -> int:
    if isinstance(world, RedisWorld):
        return int(await world.redis.execute("PTTL", key))
    assert isinstance(world, MemoryWorld)
    return world.server._expires[key] - CLOCK.now_ms()


async def test_only_an_ended_run_is_let_go(place: Place) -> None:
    live = await place.ask()
    assert not await place.world.scripts.archived(live.run)
    assert not await place.world.expires(Hands(place.world, live.run).hash)


async def test_a_key_over_the_bound_is_free_to_come_again(place: Place) -> None:
    place.door._bounds = Bounds(most_runs=0)
    with pytest.raises(Refusal) as refused:
        await place.ask()
    assert refused.value.failure.code == Code.overloaded
    place.door._bounds = Bounds()
    assert not (await place.ask()).replayed


async def test_the_last_of_its_clients_decides_for_the_run(place: Place) -> None:
    first, second = await place.ask(), await place.ask()
    await place.world.scripts.verdict(answer(first.run, "authorization"))
    await first.leave()
    assert await Hands(place.world, first.run).state() == "checking"
    await second.leave()
    await until(lambda: _ended(place, first.run))


async def _ended(place: Place, run: str) -> bool:
    return await Hands(place.world, run).state() == "ended"
