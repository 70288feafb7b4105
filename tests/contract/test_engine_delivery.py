"""The consumption engine over both implementations: delivery, retry, take-over, dead letters, repair, leaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest_asyncio

from base.ids import mint_run_id
from schemas import envelope as wire
from schemas.errors import Unavailable
from schemas.outcomes import Again, Dead, Delivery, Done, Outcome
from tests.engine_support import DLQ, FORGER, IDLE_MS, PARTITION, REQUESTS, House, P, Seen, each, request, seals
from tests.run_support import CHANCE, CLOCK, World, until


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def test_fresh_entry_is_handled_and_acknowledged(house: House) -> None:
    seen = Seen()
    await house.engine(seen)
    run = await house.accept()
    await until(house.settled)
    assert seen.runs == [run] and seen.starts == {run: [0]}


async def test_entry_published_before_the_first_consumer_is_delivered(house: House) -> None:
    seen = Seen()
    runs = [await house.accept() for _ in range(3)]
    await house.engine(seen)
    await until(house.settled)
    assert seen.runs == runs


async def test_backlog_comes_as_batches(house: House) -> None:
    seen = Seen()
    for _ in range(6):
        await house.accept()
    await house.engine(seen, batch=4)
    await until(house.settled)
    assert seen.batches == [4, 2]


async def test_single_groups_start_every_entry_alone(house: House) -> None:
    seen = Seen()
    for _ in range(3):
        await house.accept()
    await house.engine(seen, single=True)
    await until(house.settled)
    assert seen.batches == [1, 1, 1]


async def test_pull_never_exceeds_what_can_be_started(world: World, house: House) -> None:
    seen = Seen()
    seen.gate.clear()
    for _ in range(12):
        await house.accept()
    engine = await house.engine(seen, batch=3, concurrency=4)
    await until(lambda: engine.in_hand == 4)
    assert len(await world.pending(REQUESTS, "rules")) == 4
    seen.gate.set()
    await until(house.settled)
    assert seen.most <= 4 and len(seen.runs) == 12


async def test_pull_over_several_streams_stays_within_the_slots_and_starves_none(world: World, house: House) -> None:
    seen = Seen()
    keys = [f"{P}:requests:{n}" for n in range(5)]
    signer = seals("ingress").signer
    for key in keys:
        for _ in range(3):
            run = mint_run_id(CLOCK, CHANCE, PARTITION)
            e = wire.encode(request(run), id=run, by="ingress", run=run)
            await world.add(key, {"e": e, "s": wire.sign(signer, "requests", e).s})
    await house.engine(seen, keys=keys, concurrency=2, batch=2)
    await until(lambda: len(seen.runs) == 15)
    assert seen.most <= 2


async def test_handler_that_raises_is_retried_alone_while_neighbours_flow(world: World, house: House) -> None:
    poison = await house.accept()
    good = [await house.accept() for _ in range(3)]
    seen = Seen()

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        await seen(deliveries)
        if any(delivery.run == poison for delivery in deliveries):
            raise RuntimeError("no such luck")
        return [Done() for _ in deliveries]

    await house.engine(handle)
    await until(house.settled)
    assert seen.starts[poison] == [0, 1, 2]
    assert await house.reasons() == ["RuntimeError: no such luck"]
    ((_, letter),) = await world.entries(DLQ)
    assert letter[b"starts"] == b"3" and letter[b"run"] == poison.encode()
    assert (await world.runs.fields(poison))["outcome"] == b"failed"
    assert all(seen.starts[run] in ([0], [0, 1]) for run in good)
    assert await world.starts(REQUESTS, "rules") == {}
    late = await house.accept()
    await until(house.settled)
    assert seen.starts[late] == [0]


async def test_neighbours_do_not_wait_for_the_retries_of_what_stood_before_them(world: World, house: House) -> None:
    poison = await house.accept()
    good = [await house.accept() for _ in range(3)]
    done: list[str] = []

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        if any(delivery.run == poison for delivery in deliveries):
            done.extend(delivery.run for delivery in deliveries if len(deliveries) == 1)
            raise RuntimeError("no such luck")
        done.extend(delivery.run for delivery in deliveries)
        return [Done() for _ in deliveries]

    await house.engine(handle)
    await until(house.settled)
    assert sorted(done[:4]) == sorted([poison, *good]) and done[4:] == [poison]


async def test_again_is_a_counted_start(world: World, house: House) -> None:
    starts: list[int] = []

    async def twice(delivery: Delivery) -> Outcome:
        starts.append(delivery.starts)
        return Done() if delivery.starts else Again(0.0, "not yet")

    await house.engine(each(twice))
    await house.accept()
    await until(house.settled)
    assert starts == [0, 1] and await world.starts(REQUESTS, "rules") == {}


async def test_again_has_an_end(house: House) -> None:
    async def never(delivery: Delivery) -> Outcome:
        return Again(0.0, "not yet")

    await house.engine(each(never), max_starts=2)
    await house.accept()
    await until(house.settled)
    assert await house.reasons() == ["not yet"]


async def test_dead_outcome_is_not_tried_again(house: House) -> None:
    seen: list[str] = []

    async def dead(delivery: Delivery) -> Outcome:
        seen.append(delivery.run)
        return Dead("cannot be read")

    await house.engine(each(dead))
    run = await house.accept()
    await until(house.settled)
    assert seen == [run] and await house.reasons() == ["cannot be read"]


async def test_undecodable_entry_is_dead_at_once_and_neighbours_flow(world: World, house: House) -> None:
    seen = Seen()
    await house.engine(seen)
    await world.add(REQUESTS, {"e": b"junk", "s": b"t1:00"})
    await world.add(REQUESTS, {"other": b"fields"})
    run = await house.accept()
    await until(house.settled)
    assert seen.runs == [run]
    assert len(reasons := await house.reasons()) == 2 and all(r.startswith("DecodeError") for r in reasons)


async def test_wrongly_signed_entry_is_dead_and_its_run_untouched(world: World, house: House) -> None:
    seen = Seen()
    await house.engine(seen)
    run = await house.accept(FORGER)
    await until(house.settled)
    assert seen.runs == []
    (reason,) = await house.reasons()
    assert reason.startswith("SignatureError")
    assert (await world.runs.fields(run))["state"] == b"checking"


async def test_publisher_that_may_not_speak_here_is_dead(world: World, house: House) -> None:
    await house.engine(Seen())
    run = mint_run_id(CLOCK, CHANCE, PARTITION)
    e = wire.encode(request(run), id=run, by="router", run=run)
    await world.add(REQUESTS, {"e": e, "s": wire.sign(seals("router").signer, "requests", e).s})
    await until(house.settled)
    assert (await house.reasons())[0].startswith("SignatureError: 'router' may not publish")


async def test_unknown_version_is_given_back_and_never_dead(world: World, house: House) -> None:
    engine = await house.engine(Seen())
    run = mint_run_id(CLOCK, CHANCE, PARTITION)
    e = wire.encode(request(run, version=99), id=run, by="ingress", run=run)
    await world.add(REQUESTS, {"e": e, "s": wire.sign(seals("ingress").signer, "requests", e).s})
    await until(lambda: engine.counters.redelivered >= engine.spec.max_starts + 1)
    assert await house.reasons() == [] and len(await world.pending(REQUESTS, "rules")) == 1
    assert engine.in_hand == 0


async def test_store_that_is_away_is_nobodys_fault(world: World, house: House) -> None:
    starts: list[int] = []

    async def patient(delivery: Delivery) -> Outcome:
        starts.append(delivery.starts)
        if len(starts) < 3:
            raise Unavailable("PostgreSQL is away")
        return Done()

    await house.engine(each(patient), max_starts=2)
    await house.accept()
    await until(house.settled)
    assert starts == [0, 0, 0] and await house.reasons() == []


async def test_dead_consumers_entries_are_taken_over_one_at_a_time(house: House) -> None:
    runs = [await house.accept() for _ in range(4)]
    assert len(await house.ghost()) == 4
    most = now = 0
    started: dict[str, int] = {}

    async def one(delivery: Delivery) -> Outcome:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        started[delivery.run] = delivery.starts
        return Done()

    engine = await house.engine(each(one))
    await until(house.settled)
    assert most == 1 and started == dict.fromkeys(runs, 1)
    assert engine.counters.redelivered == 4


async def test_heir_takes_over_from_the_dead_without_waiting_for_silence(world: World, house: House) -> None:
    """And from nobody else: a consumer that is only silent keeps what it holds for its whole idle limit."""
    dead = await house.accept()
    await house.ghost()
    groups = await world.groups()
    silent = await house.accept()
    await groups.read([REQUESTS], "rules", "silent", 1, 50)
    seen = Seen()
    await _heir(house, seen)
    await until(lambda: seen.runs == [dead])
    assert seen.starts == {dead: [1]} and silent not in seen.runs
    await until(lambda: _held_by(world, ["silent"]))


async def _heir(house: House, seen: Seen) -> None:
    """An engine in place of the ghost, on a server that was there for long, with an idle limit that never passes."""
    engine = await house.engine(seen, idle_ms=600_000, heir_of="ghost", start=False)

    async def long_ago(*_: object) -> bool:
        return True

    engine._taking.calm.reached = long_ago  # type: ignore[method-assign, assignment]
    await engine.start()


async def _held_by(world: World, holders: list[str]) -> bool:
    return list((await world.pending(REQUESTS, "rules")).values()) == holders


async def test_many_left_entries_are_all_taken_in_one_look(world: World, house: House) -> None:
    runs = [await house.accept() for _ in range(40)]
    assert len(await house.ghost()) == 40
    seen = Seen()
    await _heir(house, seen)
    await until(lambda: len(seen.runs) == 40)
    assert sorted(seen.runs) == sorted(runs)


async def test_busy_consumer_keeps_its_entry_by_beats(world: World, house: House) -> None:
    """A ghost's entry, read later than the busy one's, is taken over; the busy one's is not."""
    busy, other = Seen(), Seen()
    busy.gate.clear()
    held = await house.accept()
    await house.engine(busy, name="busy", concurrency=1)
    await until(lambda: busy.runs == [held])
    ghosts = await house.accept()
    assert len(await house.ghost()) == 1
    await house.engine(other, name="other")
    await until(lambda: other.runs == [ghosts])

    async def only_busy() -> bool:
        return list((await world.pending(REQUESTS, "rules")).values()) == ["busy"]

    await until(only_busy)
    busy.gate.set()
    await until(house.settled)
    assert busy.starts == {held: [0]} and held not in other.runs


async def test_consumer_that_lost_its_entry_is_told_and_acknowledges_nothing(world: World, house: House) -> None:
    seen = Seen()
    seen.gate.clear()
    run = await house.accept()
    engine = await house.engine(seen, idle_ms=600)
    await until(lambda: seen.runs == [run])
    (entry,) = await world.pending(REQUESTS, "rules")
    await world.scripts.take(REQUESTS, "rules", "thief", 0, entry)
    await until(lambda: seen.cancelled == [run])
    assert engine.counters.lost == 1 and engine.in_hand == 0
    assert entry in await world.pending(REQUESTS, "rules")


async def test_lost_entry_does_not_strand_its_batch(world: World, house: House) -> None:
    seen = Seen()
    seen.gate.clear()
    runs = [await house.accept() for _ in range(3)]
    await house.engine(seen, idle_ms=600)
    await until(lambda: seen.runs == runs)
    entry = sorted(await world.pending(REQUESTS, "rules"))[0]
    await world.scripts.take(REQUESTS, "rules", "thief", 0, entry)
    await until(lambda: len(seen.cancelled) == 3)
    seen.gate.set()
    await until(lambda: _only(world, entry))
    assert seen.runs[3:5] == runs[1:]


async def _only(world: World, entry: str) -> bool:
    return set(await world.pending(REQUESTS, "rules")) <= {entry}


async def test_start_counts_survive_crashes_and_end_in_the_dead_letters(world: World, house: House) -> None:
    run = await house.accept()
    starts: list[int] = []
    for number in range(3):
        seen = Seen()
        seen.gate.clear()
        engine = await house.engine(seen, name=f"c{number}")
        await until(_given(seen, run))
        starts += seen.starts[run]
        await house.crash(engine)
    last = Seen()
    await house.engine(last, name="last")
    await until(house.settled)
    assert starts == [0, 1, 2] and last.runs == []
    assert await house.reasons() == ["started 3 times and never finished"]
    assert (await world.runs.fields(run))["outcome"] == b"failed"


def _given(seen: Seen, run: str) -> Callable[[], bool]:
    return lambda: seen.runs == [run]


async def test_deleted_entry_is_dropped_from_the_pending_list(world: World, house: House) -> None:
    await house.accept()
    (entry,) = await house.ghost()
    await world.delete(REQUESTS, entry)
    engine = await house.engine(Seen())
    await until(lambda: engine.counters.missing == 1)
    assert await world.pending(REQUESTS, "rules") == {}


async def test_outcomes_that_do_not_fit_the_batch_end_as_a_dead_letter(house: House) -> None:
    async def short(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        return []

    await house.engine(short)
    await house.accept()
    await until(house.settled)
    assert len(await house.reasons()) == 1


async def test_lost_group_is_made_again(world: World, house: House) -> None:
    seen = Seen()
    engine = await house.engine(seen)
    await house.accept()
    await until(lambda: len(seen.runs) == 1)
    await world.forget(REQUESTS)
    await until(lambda: engine.counters.repaired >= 1)
    run = await house.accept()
    await until(lambda: seen.runs[1:] == [run])


async def test_flushed_server_is_repaired(world: World, house: House) -> None:
    seen = Seen()
    await house.engine(seen)
    await house.accept()
    await until(lambda: len(seen.runs) == 1)
    await world.flush_all()
    run = await house.accept()
    await until(lambda: run in seen.runs)
    await until(house.settled)


async def test_stop_finishes_what_runs_and_leaves_nothing_pending(world: World, house: House) -> None:
    seen = Seen()
    seen.gate.clear()
    engine = await house.engine(seen)
    await house.accept()
    await until(lambda: len(seen.runs) == 1)
    stopping = asyncio.create_task(engine.stop(20.0))
    await until(lambda: engine._stopping)
    seen.gate.set()
    await stopping
    assert await world.pending(REQUESTS, "rules") == {}
    assert await world.consumers(REQUESTS, "rules") == set()
    await house.accept()
    assert len(seen.runs) == 1


async def test_stop_gives_back_what_does_not_finish(world: World, house: House) -> None:
    seen, other = Seen(), Seen()
    seen.gate.clear()
    engine = await house.engine(seen, idle_ms=60_000)
    run = await house.accept()
    await until(lambda: seen.runs == [run])
    await engine.stop(0.05)
    assert seen.cancelled == [run]
    assert len(await (await world.groups()).idle(REQUESTS, "rules", 60_000, 10)) == 1
    assert await world.starts(REQUESTS, "rules") == {}
    await house.engine(other, name="c2", idle_ms=IDLE_MS)
    await until(house.settled)
    assert other.runs == [run]


async def test_stop_of_an_idle_engine_forgets_the_consumer(world: World, house: House) -> None:
    engine = await house.engine(Seen())
    await house.accept()
    await until(house.settled)
    await engine.stop(1.0)
    assert "c1" not in await world.consumers(REQUESTS, "rules")


async def test_a_group_with_a_mark_opens_nothing_else(world: World, house: House) -> None:
    """Not even what is no event of ours: it is acknowledged and never dead."""
    seen = Seen()
    await world.add(REQUESTS, {"e": b"poison", "s": b""})
    run = await house.accept()
    wanted = (await world.entries(REQUESTS))[-1][1]
    await world.add(REQUESTS, {**{name.decode(): value for name, value in wanted.items()}, "keep": b"1"})
    await house.engine(seen, marked="keep")
    await until(house.settled)
    assert seen.runs == [run] and await world.entries(DLQ) == []
