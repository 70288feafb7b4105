"""The fair gate before the lanes: nothing passes beyond the announced slots, and who goes in next is fair."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from base.ids import mint_run_id
from runtime.names import prefix, waiting_key
from runtime.places import Announcer, Places
from tests.run_support import CHANCE, CLOCK, FAMILIES, POOL, Hands, World, acceptance, answer, frame, until
from tests.run_support import ending as ending_of

P = prefix(2)
INTERACTIVE, BATCH = f"{P}:cleared:{POOL}:interactive", f"{P}:cleared:{POOL}:batch"


async def announce(world: World, slots: int, router: str = "r1", holds_ms: int = 60_000, most: int = 1_000) -> int:
    """How many runs the announcement let in."""
    return (await world.scripts.announce(P, router, holds_ms, {POOL: slots}, most)).admitted


async def clear(world: World, tenant: str = "org", lane: str = "interactive", **place: Any) -> Hands:
    """A run that every family let pass, whether or not it waits then."""
    hands = Hands(world, mint_run_id(CLOCK, CHANCE, 2))
    await world.scripts.accept(acceptance(hands.run, most_runs=100_000, most_bytes=1_000_000_000))
    for family in FAMILIES:
        said = answer(hands.run, family)
        if family == "authorization":
            said = msgspec.structs.replace(said, tenant=tenant, lane=lane, **place)
        await world.scripts.verdict(said)
    return hands


async def end(world: World, run: str, tokens: int | None = None) -> None:
    """A run in a lane ends, as the sweeper would end it; its slot is free."""
    fact = msgspec.structs.replace(ending_of("RequestFailed", run, "failed"), tokens=tokens)
    assert await world.scripts.end(run, "state", "queued", "0-0", frame("no", kind="error"), fact) == "ok"


async def inside(world: World, lane: str = INTERACTIVE) -> list[str]:
    """Runs whose entries lie in a lane, in order."""
    return [fields[b"e"].decode().partition('"run":"')[2][:36] for _, fields in await world.entries(lane)]


async def serve(world: World, count: int, owners: dict[str, str]) -> list[str]:
    """End what is inside, one after the other; the tenants in the order in which their runs went in after that."""
    known, order = set(await inside(world)), []
    for _ in range(count):
        await end(world, (await inside(world))[0])
        for run in await inside(world):
            if run not in known:
                known.add(run)
                order.append(owners[run])
    return order


async def queue_up(world: World, plan: Sequence[tuple[str, int]], **place: Any) -> dict[str, str]:
    """Runs that wait behind a full lane of one slot: (tenant, how many), one tenant after the other; run -> tenant."""
    await announce(world, 1)
    await clear(world, "first")
    runs = [(tenant, await clear(world, tenant, **place)) for tenant, count in plan for _ in range(count)]
    return {hands.run: tenant for tenant, hands in runs}


async def test_without_a_router_runs_wait_and_go_in_when_one_announces(world: World) -> None:
    hands = await clear(world)
    assert await hands.state() == "queued" and await inside(world) == []
    assert await announce(world, 4) == 1
    assert await inside(world) == [hands.run]


async def test_a_lane_never_holds_more_than_was_announced(world: World) -> None:
    await announce(world, 3)
    runs = [await clear(world) for _ in range(10)]
    assert await inside(world) == [hands.run for hands in runs[:3]]
    for number in range(7):
        await end(world, runs[number].run)
        assert len(await inside(world)) == 3
    for number in range(7, 10):
        await end(world, runs[number].run)
    assert await inside(world) == []


async def test_slots_of_several_routers_add_up_and_those_of_one_that_leaves_are_gone(world: World) -> None:
    await announce(world, 2, "r1")
    seat = await world.scripts.announce(P, "r2", 60_000, {POOL: 3}, 100)
    assert (seat.place, seat.routers) == (1, 2)
    for _ in range(9):
        await clear(world)
    assert len(await inside(world)) == 5
    seat = await world.scripts.announce(P, "r1", 0, {POOL: 0}, 100)
    assert (seat.place, seat.routers) == (-1, 1)
    for run in (await inside(world))[:3]:
        await end(world, run)
    assert len(await inside(world)) == 3


async def test_a_router_that_starts_announces_its_part_from_the_first_time_on(world: World) -> None:
    async def router(name: str) -> Announcer:
        known = {"routers": 1}

        async def capacities() -> Mapping[str, int]:
            return {POOL: 8 // known["routers"]}

        def seated(place: int, routers: int) -> None:
            known["routers"] = routers

        made = Announcer(name, [P], Places(), capacities, seated, world.scripts, CLOCK)
        await made.start()
        return made

    first = await router("r1")
    for _ in range(20):
        await clear(world)
    assert len(await inside(world)) == 8
    second = await router("r2")
    there = len(await inside(world))
    await asyncio.gather(first.stop(), second.stop())
    assert there == 8 + 4, "the first does not know yet that it has less; the second never took itself for the only one"


async def test_an_announcement_ends_by_itself(world: World) -> None:
    await announce(world, 5, "dead", holds_ms=40)
    assert (await world.scripts.announce(P, "r1", 60_000, {POOL: 1}, 100)).routers == 2

    async def alone() -> bool:
        return (await world.scripts.announce(P, "r1", 60_000, {POOL: 1}, 100)).routers == 1

    await until(alone)
    for _ in range(3):
        await clear(world)
    assert len(await inside(world)) == 1


async def test_a_dead_router_leaves_nothing_behind_when_the_servers_clock_was_set_back(world: World) -> None:
    await announce(world, 5, "dead", holds_ms=3_600_000)  # as it looks after an hour's step back
    seat = await world.scripts.announce(P, "r1", 60_000, {POOL: 1}, 100)
    assert (seat.place, seat.routers) == (0, 1)
    for _ in range(3):
        await clear(world)
    assert len(await inside(world)) == 1


async def test_no_pool_stands_in_the_way_of_one_whose_name_begins_like_a_key_of_it(world: World) -> None:
    pools = {POOL: 1, f"{POOL}:slots": 1, f"{POOL}:interactive:waiting": 1, f"{POOL}:interactive:tenants": 1}
    await world.scripts.announce(P, "r1", 60_000, pools, 100)
    first, second = await clear(world), await clear(world)
    assert await inside(world) == [first.run]
    await world.scripts.announce(P, "r1", 60_000, pools, 100)
    await end(world, first.run)
    assert await inside(world) == [second.run]


async def test_a_light_tenant_does_not_wait_behind_a_heavy_one(world: World) -> None:
    owners = await queue_up(world, [("heavy", 12), ("light", 3)])
    order = await serve(world, 8, owners)
    assert order[:6].count("light") == 3


async def test_weights_are_shares(world: World) -> None:
    await announce(world, 1)
    await clear(world, "first")
    owners = {}
    for tenant, weight in (("four", 4), ("two", 2), ("one", 1)):
        for _ in range(30):
            owners[(await clear(world, tenant, weight=weight)).run] = tenant
    served = Counter(await serve(world, 28, owners))
    assert abs(served["four"] - 16) <= 1 and abs(served["two"] - 8) <= 1 and abs(served["one"] - 4) <= 1


async def test_long_runs_cost_their_tenant_its_turn(world: World) -> None:
    await announce(world, 1)
    await clear(world, "first")
    owners = {(await clear(world, "long", cost=1_000)).run: "long" for _ in range(6)}
    owners |= {(await clear(world, "short", cost=100)).run: "short" for _ in range(20)}
    served = Counter(await serve(world, 11, owners))
    assert served["long"] == 1 and served["short"] == 10


async def test_a_run_that_cost_more_than_expected_is_charged_for_it(world: World) -> None:
    await announce(world, 1)
    first = await clear(world, "first")
    greedy = [await clear(world, "greedy", cost=100) for _ in range(3)]
    modest = [await clear(world, "modest", cost=100) for _ in range(3)]
    owners = {hands.run: "greedy" for hands in greedy} | {hands.run: "modest" for hands in modest}
    await end(world, first.run)
    assert owners[(await inside(world))[0]] == "greedy"
    await end(world, (await inside(world))[0], tokens=10_000)
    assert await serve(world, 3, owners) == ["modest", "modest", "greedy"]


async def test_priority_goes_first_inside_a_tenant_and_never_before_another(world: World) -> None:
    await announce(world, 1)
    await clear(world, "first")
    usual = [await clear(world, "a") for _ in range(3)]
    urgent = await clear(world, "a", priority=5)
    other = await clear(world, "b")
    seen: list[str] = []
    for _ in range(4):
        await end(world, (await inside(world))[0])
        seen += await inside(world)
    assert seen == [urgent.run, other.run, *sorted(hands.run for hands in usual)[:2]]


async def test_interactive_goes_before_batch_and_both_share_the_slots(world: World) -> None:
    await announce(world, 2)
    first = [await clear(world, "a", "batch"), await clear(world, "a", "batch")]
    waiting_batch = await clear(world, "a", "batch")
    waiting = await clear(world, "a", "interactive")
    assert (len(await inside(world)), len(await inside(world, BATCH))) == (0, 2)
    await end(world, first[0].run)
    assert await inside(world) == [waiting.run]
    await end(world, first[1].run)
    assert await inside(world, BATCH) == [waiting_batch.run]


async def test_batch_keeps_one_turn_in_ten_while_interactive_waits(world: World) -> None:
    await announce(world, 1)
    await clear(world, "first")
    owners = {(await clear(world, "b", "batch")).run: "batch" for _ in range(4)}
    owners |= {(await clear(world, "i")).run: "interactive" for _ in range(30)}
    order: list[str] = []
    for _ in range(24):
        lane = BATCH if await inside(world, BATCH) else INTERACTIVE
        await end(world, (await inside(world, lane))[0])
        order += [owners[run] for run in await inside(world) + await inside(world, BATCH)]
    assert order == (["interactive"] * 9 + ["batch"]) * 2 + ["interactive"] * 4


async def test_a_run_that_ends_while_it_waits_is_never_let_in(world: World) -> None:
    owners = await queue_up(world, [("a", 3)])
    gone, *_ = owners
    await end(world, gone)
    order = await serve(world, 2, owners)
    assert order == ["a", "a"] and await inside(world) != [gone]
    again = Hands(world, gone)
    assert await again.state() == "ended"


async def test_a_tenant_that_comes_back_has_no_credit_for_its_absence(world: World) -> None:
    owners = await queue_up(world, [("busy", 10)])
    await serve(world, 5, owners)
    owners |= {(await clear(world, "back")).run: "back" for _ in range(5)}
    order = await serve(world, 6, owners)
    assert order.count("back") in (3, 4)


async def test_a_cleared_run_that_fell_between_two_steps_is_put_back(world: World) -> None:
    await announce(world, 1)
    hands = await clear(world)
    assert not await world.scripts.regate(hands.run)
    ((entry, _),) = await world.entries(INTERACTIVE)
    await world.delete(INTERACTIVE, entry)
    assert await world.scripts.regate(hands.run)
    assert await inside(world) == [hands.run] and not await world.scripts.regate(hands.run)


async def test_a_waiting_run_is_not_put_back(world: World) -> None:
    hands = await clear(world)
    assert not await world.scripts.regate(hands.run)
    await announce(world, 2)
    assert await inside(world) == [hands.run]


async def test_one_announcement_lets_in_no_more_than_it_is_told(world: World) -> None:
    for _ in range(5):
        await clear(world)
    assert await announce(world, 5, most=2) == 2
    assert await announce(world, 5, most=10) == 3


def test_the_waiting_of_a_lane_stands_under_its_own_key() -> None:
    assert waiting_key(f"{P}:cleared:a:b:batch") == f"{P}:gate:a:b|batch:waiting"
