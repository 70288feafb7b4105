"""The sweeper, on the twin and on servers: deadlines, fail policies, lost doors, runs without state, trimming."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.sweeper import Sweeper
from schemas.frames import decode_failure
from schemas.verdicts import PASS, Grant, Verdict, seal_verdict
from tests.engine_support import House, seals
from tests.run_support import (
    CHANCE,
    CLOCK,
    FAMILIES,
    LANE,
    PARTITIONS,
    POOL,
    Hands,
    World,
    acceptance,
    answer,
)


def _sweeper(world: World, trims: dict[str, tuple[str, ...]] | None = None) -> Sweeper:
    hands = seals("sweeper")
    return Sweeper(world.redis, world.scripts, world.runs, hands, CLOCK, CHANCE, PARTITIONS, trims or {}, calm_s=0.0)


async def _failure(world: World, hands: Hands, place: tuple[int, int]) -> str:
    """The code of the error frame at a place."""
    frame = (await world.runs.frames(hands.run, 0, 0, 10))[-1]
    opened = seals("ingress").open_frame(hands.run, *place, frame.kind, frame.events, frame.payload, frame.headers)
    return decode_failure(opened.payload).code


async def _authorized(world: World, hands: Hands, fail: dict[str, str]) -> None:
    """Authorization passed with this fail policy."""
    verdict = Verdict(
        run=hands.run,
        family="authorization",
        outcome=PASS,
        policy="p",
        body_digest="d",
        grant=Grant(tenant="org", key_id="k1", pool=POOL, lane=LANE, fail=fail),
    )
    said: Any = answer(hands.run, "authorization")
    await world.scripts.verdict(
        type(said)(
            run=said.run,
            family=said.family,
            entry="",
            outcome=PASS,
            stored=seal_verdict(seals("authorization").signer, verdict),
            pool=POOL,
            lane=LANE,
            tenant="org",
        )
    )


async def test_run_in_time_is_left_alone(world: World) -> None:
    hands = Hands(world)
    await hands.clear()
    assert await _sweeper(world).sweep() == 0 and await hands.state() == "queued"


@pytest.mark.parametrize("state", ["checking", "queued", "running"])
async def test_run_past_its_deadline_is_failed_once_in_every_state(world: World, state: str) -> None:
    hands = Hands(world)
    await hands.announce()
    await world.scripts.accept(acceptance(hands.run, deadline_ms=0, checks_ms=0))
    if state != "checking":
        for family in FAMILIES:
            await world.scripts.verdict(answer(hands.run, family))
    if state == "running":
        (entry,) = await hands.read(hands.lane, "router", "r1")
        await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
        await hands.flush(1)
    assert await _sweeper(world).sweep() == 1
    assert (await hands.state(), await hands.field("outcome")) == ("ended", "failed")
    assert await _failure(world, hands, (1, 2) if state == "running" else (0, 1)) == "deadline_exceeded"
    assert await _sweeper(world).sweep() == 0 and await hands.kinds() == ["RequestFailed"]
    assert await hands.flush(2) == "lost"


async def test_missing_verdict_of_an_open_family_lets_the_run_go_on(world: World) -> None:
    hands = Hands(world)
    await world.scripts.accept(acceptance(hands.run, checks_ms=0))
    await _authorized(world, hands, {"persons": "open"})
    await world.scripts.verdict(answer(hands.run, "rules"))
    assert await _sweeper(world).sweep() == 1
    assert (await hands.state(), await hands.field("o:persons")) == ("queued", "missing")


async def test_missing_verdict_of_a_closed_family_fails_the_run(world: World) -> None:
    hands = Hands(world)
    await world.scripts.accept(acceptance(hands.run, checks_ms=0))
    await _authorized(world, hands, {"persons": "closed", "rules": "open"})
    await _sweeper(world).sweep()
    assert await hands.state() == "ended"
    assert await _failure(world, hands, (0, 1)) == "guardrail_unavailable"


async def test_run_without_state_is_forgotten_with_its_bytes(world: World) -> None:
    hands = Hands(world)
    await world.scripts.accept(acceptance(hands.run, checks_ms=0))
    await world.forget(hands.hash)
    assert await _sweeper(world).sweep() == 1
    assert await world.live(hands.p) == {} and await world.body(hands.run) is None
    assert await world.kept_bytes(hands.p) == 0


async def test_runs_of_a_lost_door_follow_their_policy(world: World) -> None:
    waiting, finishing, watched, running = (Hands(world) for _ in range(4))
    await waiting.accept(watcher="lost#1")
    await finishing.accept(watcher="lost#2", policy="finish")
    await watched.accept(watcher="lost#3")
    await world.scripts.watch(watched.run, "alive#1", add=True)
    for hands in (waiting, finishing, watched):
        await world.scripts.verdict(answer(hands.run, "authorization"))
    await running.own()
    for name in ("door#1", "lost#4"):
        await world.scripts.watch(running.run, name, add=name.startswith("lost"))
    await world.redis.execute("ZADD", f"{waiting.p}:doors", 1, "lost", CLOCK.now_ms() + 3_600_000, "alive")
    await _sweeper(world).sweep()
    assert (await waiting.state(), await waiting.field("outcome")) == ("ended", "cancelled")
    assert await finishing.state() == "checking" and await watched.state() == "checking"
    assert await running.field("cancel") == "lost"
    assert await world.redis.execute("ZRANGE", f"{waiting.p}:doors", 0, -1) == [b"alive"]


async def test_run_that_nobody_came_back_to_ends_at_its_grace_whoever_counted_it(world: World) -> None:
    """No door is there any more: what it wrote when the last watcher went is enough."""
    over, early, back = (Hands(world) for _ in range(3))
    for hands, policy in ((over, "grace:0"), (early, "grace:60"), (back, "grace:0")):
        await hands.accept(watcher="dead#1", policy=policy)
        await world.scripts.verdict(answer(hands.run, "authorization"))
        await world.scripts.watch(hands.run, "dead#1", add=False)
    await world.scripts.watch(back.run, "alive#1", add=True)
    assert await _sweeper(world).sweep() == 1
    assert (await over.state(), await over.field("outcome")) == ("ended", "cancelled")
    assert (await early.state(), await back.state()) == ("checking", "checking")
    assert await over.kinds() == ["RequestCancelled"]


async def test_running_run_whose_grace_is_over_is_flagged_and_a_vanished_one_forgotten(world: World) -> None:
    running, vanished = Hands(world), Hands(world)
    await running.own()
    for hands in (running, vanished):
        await world.redis.execute("ZADD", f"{hands.p}:left", 1, hands.run)
    await world.scripts.watch(running.run, "door#1", add=False)
    assert await _sweeper(world).sweep() == 1
    assert await running.field("cancel") == "client"
    assert await world.redis.execute("ZRANGE", f"{running.p}:left", 0, -1) == []


async def test_sweep_trims_what_everyone_acknowledged(world: World) -> None:
    house = House(world)
    run = await house.accept()
    hands = Hands(world, run)
    for family in FAMILIES:
        (entry,) = await hands.read(hands.requests, family, "c1")
        await world.scripts.verdict(answer(run, family, entry=entry))
    await _sweeper(world, {hands.requests: FAMILIES}).sweep()
    assert await world.entries(hands.requests) == []
