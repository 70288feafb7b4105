"""Groups of one process that read one stream together, and their verdicts given together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from msgspec import structs

from runtime.claims import Moved, Taker
from runtime.consume import Engine
from runtime.jointly import Jointly
from runtime.scripts import Answer
from schemas.errors import Unavailable
from schemas.outcomes import Delivery, Done, Outcome
from tests.engine_support import REQUESTS, House, Seen
from tests.run_support import CLOCK, FAMILIES, Hands, World, answer, until


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
    await world.scripts.verdicts([answer(hands.run, FAMILIES[n], outcomes[n]) for n in together])
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
    assert await world.scripts.verdicts(said) == Moved(True, "queued")
    assert [await world.pending(hands.requests, family) for family in FAMILIES] == [{}, {}, {}]


@dataclass
class Noted:
    """Scripts that note the steps they were asked for. away: how many of them fail."""

    away: int = 0
    steps: list[list[str]] = field(default_factory=list)

    async def verdicts(self, answers: Sequence[Answer], taker: Taker | None = None) -> Moved:
        self.steps.append([f"{said.run} {said.family}" for said in answers])
        if len(self.steps) <= self.away:
            raise Unavailable("away")
        return Moved(True, "queued")


async def test_answers_of_one_moment_go_in_one_step_for_each_run() -> None:
    noted = Noted()
    joint = Jointly(noted)  # type: ignore[arg-type]
    pairs = [(run, family) for run in ("a", "b") for family in FAMILIES]
    assert await asyncio.gather(*(joint.verdict(answer(*pair)) for pair in pairs)) == [(True, "queued")] * 6
    assert noted.steps == [[f"{run} {family}" for family in FAMILIES] for run in ("a", "b")]


async def test_step_that_fails_fails_for_each_answer_and_is_asked_for_again() -> None:
    noted = Noted(away=1)
    joint = Jointly(noted)  # type: ignore[arg-type]

    async def insist(family: str) -> tuple[bool, str]:
        try:
            return await joint.verdict(answer("a", family))
        except Unavailable:
            return await joint.verdict(answer("a", family))

    assert await asyncio.gather(*(insist(family) for family in FAMILIES)) == [(True, "queued")] * 3
    assert noted.steps == [[f"a {family}" for family in FAMILIES]] * 2


async def test_step_waits_for_no_quiet_moment_once_all_that_its_run_asks_have_answered() -> None:
    noted = Noted()
    joint = Jointly(noted)  # type: ignore[arg-type]
    asked = len(FAMILIES)
    whole = [joint.verdict(structs.replace(answer("a", family), families=asked)) for family in FAMILIES]
    parts = []
    for number in range(20):
        parts.append(joint.verdict(structs.replace(answer(f"b{number}", FAMILIES[0]), families=asked)))
        await CLOCK.sleep(0)
    assert noted.steps == [[f"a {family}" for family in FAMILIES]]
    assert await asyncio.gather(*whole, *parts) == [(True, "queued")] * (asked + 20)
    assert noted.steps[1:] == [[f"b{number} {FAMILIES[0]}"] for number in range(20)]
