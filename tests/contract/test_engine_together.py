"""Groups of one process that read one stream together, and their verdicts given together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from base.ids import mint_run_id
from runtime.claims import Handed, Moved, Taker
from runtime.client import ServerError
from runtime.consume import Engine
from runtime.jointly import Alone, Jointly
from runtime.names import prefix_of
from runtime.scripts import Answer, Said
from schemas.errors import HeadraceError, Unavailable
from schemas.outcomes import Delivery, Done, Outcome
from tests.engine_support import REQUESTS, House, Seen
from tests.run_support import CHANCE, CLOCK, FAMILIES, POOL, Hands, RedisWorld, World, answer, until, verdicts


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def trio(house: House, **batches: int) -> dict[str, tuple[Engine, Seen]]:
    """An engine for each family; all read together."""
    made: dict[str, tuple[Engine, Seen]] = {}
    for family, groups in zip(FAMILIES, await house.world.together(REQUESTS, len(FAMILIES)), strict=True):
        seen = Seen()
        most = batches.get(family, 64)
        made[family] = await house.engine(seen, group=family, groups=groups, batch=most, concurrency=most), seen
    return made


async def all_settled(house: House) -> bool:
    return all([await house.settled(family) for family in FAMILIES])


async def test_every_group_gets_every_entry_of_before_and_after(house: House) -> None:
    runs = [await house.accept() for _ in range(3)]
    made = await trio(house)
    await until(lambda: all_settled(house))
    runs += [await house.accept() for _ in range(5)]
    await until(lambda: all_settled(house))
    assert [seen.runs for _, seen in made.values()] == [runs] * 3


async def test_backlog_larger_than_a_read_is_drained_without_a_further_entry(house: House) -> None:
    runs = [await house.accept() for _ in range(7)]
    made = await trio(house, rules=2, persons=3)
    await until(lambda: all_settled(house))
    assert [sorted(seen.runs) for _, seen in made.values()] == [sorted(runs)] * 3


async def test_group_without_a_free_slot_holds_up_nobody_and_misses_nothing(house: House) -> None:
    made = await trio(house, rules=1)
    slow = made["rules"][1]
    slow.gate.clear()
    runs = [await house.accept() for _ in range(4)]
    await until(lambda: house.settled("authorization"))
    await until(lambda: house.settled("persons"))
    assert slow.now == 1
    slow.gate.set()
    await until(lambda: all_settled(house))
    assert slow.runs == runs and slow.most == 1


async def test_entries_that_another_process_takes_are_left_to_it(house: House) -> None:
    made = await trio(house)
    other = Seen()
    await house.engine(other, name="c2", group="rules")
    runs = [await house.accept() for _ in range(20)]
    await until(lambda: all_settled(house))
    assert sorted(made["rules"][1].runs + other.runs) == sorted(runs)
    assert made["persons"][1].runs == runs


async def test_lost_groups_are_made_again(world: World, house: House) -> None:
    made = await trio(house)
    await house.accept()
    await until(lambda: all_settled(house))
    await world.flush_all()
    run = await house.accept()
    await until(lambda: all(seen.runs[-1] == run for _, seen in made.values()))
    await until(lambda: all_settled(house))


async def test_one_that_stops_leaves_the_others_reading(house: House) -> None:
    made = await trio(house)
    engine = made["rules"][0]
    house.engines.remove(engine)
    await engine.stop(0.05)
    run = await house.accept()
    await until(lambda: house.settled("persons"))
    assert made["persons"][1].runs == [run] and made["rules"][1].runs == []
    assert engine.consumer not in await house.world.consumers(REQUESTS, "rules")


async def test_body_comes_along_with_its_entry_unless_it_is_long(house: House) -> None:
    given: list[bytes] = []

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        given.extend(delivery.body for delivery in deliveries)
        return [Done() for _ in deliveries]

    groups, _ = await house.world.together(REQUESTS, 2)
    await house.engine(handle, groups=groups)
    run = await house.accept()
    await until(house.settled)
    assert given == [await house.world.runs.checking_body(run)]


# --- verdicts


@pytest.mark.parametrize("outcomes", list(itertools.product(("pass", "refuse"), repeat=3)))
@pytest.mark.parametrize("together", [(0, 1), (1, 2), (0, 1, 2)])
async def test_answers_in_one_step_decide_as_one_after_the_other(
    world: World, hands: Hands, outcomes: tuple[str, ...], together: tuple[int, ...]
) -> None:
    other = Hands(world)
    for each in (hands, other):
        await each.accept()
    said = dict(zip(FAMILIES, outcomes, strict=True))
    await verdicts(world.scripts, [answer(hands.run, FAMILIES[n], outcomes[n]) for n in together])
    for n, (family, outcome) in enumerate(said.items()):
        if n not in together:
            await world.scripts.verdict(answer(hands.run, family, outcome))
        await world.scripts.verdict(answer(other.run, family, outcome))
    assert await hands.state() == await other.state()
    if await hands.state() == "ended":
        frames = [await world.runs.frames(each.run, 0, 0, 9) for each in (hands, other)]
        assert frames[0] == frames[1]


async def test_every_entry_of_the_step_is_acknowledged(world: World, hands: Hands) -> None:
    await hands.accept()
    groups = await world.groups()
    for family in FAMILIES:
        await groups.ensure(hands.requests, family)
        await groups.read([hands.requests], family, "c1", 10, 50)
    ((entry, _),) = await world.entries(hands.requests)
    said = [answer(hands.run, family, "pass", entry) for family in FAMILIES]
    assert await verdicts(world.scripts, said) == Moved(True, "queued")
    assert [await world.pending(hands.requests, family) for family in FAMILIES] == [{}, {}, {}]


@dataclass
class Noted:
    """Scripts that note the steps they were asked for, by call. away: how many calls fail; refused: the run that the
    server refuses."""

    away: int = 0
    refused: str = ""
    calls: list[list[tuple[str, list[str]]]] = field(default_factory=list)

    async def verdicts(self, said: Sequence[Said]) -> list[Moved | HeadraceError]:
        self.calls.append([(one.run, [answer.family for answer in one.answers]) for one in said])
        if len(self.calls) <= self.away:
            raise Unavailable("away")
        return [ServerError("no") if one.run == self.refused else Moved(True, "queued") for one in said]


def run_ids(count: int, partition: int = 1) -> list[str]:
    return [mint_run_id(CLOCK, CHANCE, partition) for _ in range(count)]


async def test_answers_of_one_moment_go_in_one_step_for_each_run_and_one_call_for_a_partition() -> None:
    noted, here, there = Noted(), run_ids(2), run_ids(1, 2)
    joint = Jointly(noted)  # type: ignore[arg-type]
    batches = [[answer(run, family) for run in (*here, *there)] for family in FAMILIES]
    assert await asyncio.gather(*(joint.tell(batch) for batch in batches)) == [[(True, "queued", None)] * 3] * 3
    assert noted.calls == [[(run, list(FAMILIES)) for run in runs] for runs in (here, there)]


async def test_when_all_families_have_answered_nobody_is_waited_for() -> None:
    noted, (first, second) = Noted(), run_ids(2)
    joint = Jointly(noted, len(FAMILIES))  # type: ignore[arg-type]
    told = [joint.tell([answer(first, family)]) for family in FAMILIES]
    told += [joint.tell([answer(second, family)]) for family in FAMILIES[:2]]
    await asyncio.sleep(0)
    assert noted.calls == [[(first, list(FAMILIES))]]
    await asyncio.gather(*told)
    assert noted.calls[1:] == [[(second, list(FAMILIES[:2]))]]


async def test_a_run_that_a_family_has_not_answered_keeps_the_others_of_that_moment() -> None:
    noted, (first, second) = Noted(), run_ids(2)
    joint = Jointly(noted, len(FAMILIES))  # type: ignore[arg-type]
    told = [joint.tell([answer(second, "rules")])]
    told += [joint.tell([answer(first, family)]) for family in FAMILIES]
    await asyncio.gather(*told)
    assert noted.calls == [[(second, ["rules"]), (first, list(FAMILIES))]]


async def test_a_call_has_a_bound_of_runs() -> None:
    noted, runs = Noted(), run_ids(40)
    joint = Jointly(noted)  # type: ignore[arg-type]
    assert len(await joint.tell([answer(run, "rules") for run in runs])) == 40
    assert [len(call) for call in noted.calls] == [16, 16, 8]
    assert [run for call in noted.calls for run, _ in call] == runs


async def test_call_that_fails_fails_for_each_answer_and_is_asked_for_again() -> None:
    noted, (run,) = Noted(away=1), run_ids(1)
    joint = Jointly(noted)  # type: ignore[arg-type]

    async def insist(family: str) -> Sequence[Moved]:
        try:
            return await joint.tell([answer(run, family)])
        except Unavailable:
            return await joint.tell([answer(run, family)])

    assert await asyncio.gather(*(insist(family) for family in FAMILIES)) == [[(True, "queued", None)]] * 3
    assert noted.calls == [[(run, list(FAMILIES))]] * 2


@pytest.mark.parametrize("way", [Jointly, Alone])
async def test_run_that_the_server_refuses_fails_only_its_own_batch(way: Callable[[Any], Jointly | Alone]) -> None:
    whole, bad = run_ids(2)
    to = way(Noted(refused=bad))
    told = await asyncio.gather(*(to.tell([answer(run, "rules")]) for run in (bad, whole)), return_exceptions=True)
    assert [type(each) for each in told] == [ServerError, list]


class Stumbling:
    """A router that takes every run and cannot start one of them."""

    def __init__(self, bad: str) -> None:
        self._bad = bad

    def offer(self, answers: Sequence[Answer], lane: str) -> Taker | None:
        return Taker(consumer="c1", owner=f"c1:{answers[0].run}", pool=POOL)

    def settle(self, run: str, taker: Taker, lane: str, handed: Handed | None) -> None:
        if taker.owner == f"c1:{self._bad}":
            raise RuntimeError("no")

    def lost(self, run: str, taker: Taker, lane: str) -> None:
        raise AssertionError("nothing was lost")


async def test_run_that_its_router_cannot_start_keeps_no_other_of_the_call_waiting() -> None:
    noted, (bad, whole) = Noted(), run_ids(2)
    joint = Jointly(noted, len(FAMILIES))  # type: ignore[arg-type]
    joint.routers[prefix_of(bad)] = Stumbling(bad)
    tells = [joint.tell([answer(run, family)]) for family in FAMILIES for run in (bad, whole)]
    told = await asyncio.gather(*tells, return_exceptions=True)
    assert [type(each) for each in told] == [RuntimeError, list] * 3
    assert len(noted.calls) == 1


async def test_verdicts_of_several_runs_in_one_call_do_what_single_ones_do(world: World) -> None:
    runs = [Hands(world) for _ in range(5)]
    first, refused, waits, _, again = runs
    for each in (first, refused, waits, again):
        await each.accept()
    await verdicts(world.scripts, [answer(again.run, family) for family in FAMILIES])
    said = [
        Said([answer(each.run, family, "refuse" if each is refused else "pass") for family in FAMILIES])
        for each in runs
    ]
    said[2] = Said([answer(waits.run, "rules")])
    assert await world.scripts.verdicts(said) == [
        Moved(True, "queued"),
        Moved(True, "ended"),
        Moved(False, "checking"),
        Moved(False, "gone"),
        Moved(False, "queued"),
    ]
    assert [await each.state() for each in (first, refused, waits, again)] == ["queued", "ended", "checking", "queued"]


async def test_run_whose_step_fails_touches_no_other_of_the_call(world: World) -> None:
    runs = [Hands(world) for _ in range(3)]
    for each in runs:
        await each.accept()
    if not isinstance(world, RedisWorld):
        return
    await world.redis.execute("DEL", f"{runs[1].p}:run:{runs[1].run}")
    await world.redis.execute("SET", f"{runs[1].p}:run:{runs[1].run}", "no hash")
    said = [Said([answer(each.run, family) for family in FAMILIES]) for each in runs]
    one, two, three = await world.scripts.verdicts(said)
    assert (one, three) == (Moved(True, "queued"), Moved(True, "queued"))
    assert isinstance(two, ServerError) and "WRONGTYPE" in str(two)
