"""A run is begun while the step that clears it is under way, and nothing of it is written before that has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest_asyncio
from msgspec.structs import replace

from base.clock import Clock
from base.crypto import Verifier
from runtime.jointly import Jointly
from runtime.scripts import Answer
from schemas.envelope import Signed, verify
from schemas.errors import Unavailable
from schemas.events import RequestCancelled, RequestCompleted, Usage
from schemas.frames import END
from schemas.outcomes import Delivery
from schemas.ports import RunLease
from tests.engine_support import LANE_KEY, REQUESTS, House, P
from tests.handing_support import Counted, ended, judge, process, said
from tests.run_support import CLOCK, POOL, RING, World, answer, ending, frame, until
from tests.state_support import FakeClock


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


class Eager:
    """A router that writes two frames at once, the first as a relay does, and ends the run; it notes every lease."""

    def __init__(self) -> None:
        self.leases: list[RunLease] = []
        self.told: list[bool] = []  # of each first frame, whether it was stored
        self.failures = 0  # so many of the next runs fail at once

    async def __call__(self, lease: RunLease) -> None:
        self.leases.append(lease)
        if self.failures:
            self.failures -= 1
            raise Unavailable("a store is away")
        stored = asyncio.get_running_loop().create_future()
        lease.offer(b"data: 1\n\n", 1, stored.set_result)
        self.told.append(await stored)
        await lease.flush(b"data: 2\n\n", 1)
        if lease.cancelled.is_set():
            await lease.end(END, b"data: [DONE]\n\n", 1, RequestCancelled(run=lease.run, by="client"))
            return
        fact = RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage(prompt_tokens=1))
        await lease.end(END, b"data: [DONE]\n\n", 1, fact)

    def of(self, run: str) -> list[RunLease]:
        """The leases that it was given of a run, in order."""
        return [lease for lease in self.leases if lease.run == run]


async def asked(world: World, run: str) -> Delivery:
    """The entry of a run that waits for verdicts, with its body, as the families get it."""
    for entry, fields in await world.entries(REQUESTS):
        signed = Signed(fields[b"e"], fields[b"s"])
        envelope, event = verify(Verifier(RING), "requests", {"ingress": ("RequestAccepted",)}, signed)
        if envelope.run == run:
            body = await world.body(run) or b""
            return Delivery(stream=REQUESTS, entry=entry, envelope=envelope, event=event, fields=fields, body=body)
    raise AssertionError("it was not accepted")


async def answers_to(world: World, run: str) -> list[Answer]:
    """Every family passes the run, and has it in hand."""
    delivery = await asked(world, run)
    return [replace(one, asked=delivery) for one in said(run)]


async def tell(joint: Jointly, answers: Sequence[Answer]) -> list[Any]:
    """All answers in one moment; what came of each, or why nothing did."""
    told = await asyncio.gather(*(joint.tell([one]) for one in answers), return_exceptions=True)
    return [one if isinstance(one, BaseException) else one[0][:2] for one in told]


@dataclass(frozen=True, slots=True)
class Party:
    """A process that was handed a run: it begins the next ones before they are claimed."""

    joint: Jointly
    scripts: Counted
    served: Eager


async def opened(world: World, house: House, clock: Clock = CLOCK) -> Party:
    """With its first run ended."""
    scripts, served = Counted(world), Eager()
    joint, _ = await process(house, scripts, served, 8, clock)
    first = await house.accept()
    assert await judge(joint, first) == [(True, "running")] * 3
    await until(lambda: ended(world, first))
    assert [lease.claimed for lease in served.of(first)] == [True]
    return Party(joint, scripts, served)


async def begun(world: World, party: Party, *runs: str) -> asyncio.Future[list[Any]]:
    """The verdicts about these runs, in one call that is carried out and not answered before `reply`, and the runs are
    begun; what will come of them."""
    answers = [one for run in runs for one in await answers_to(world, run)]
    party.scripts.reply.clear()
    told = asyncio.ensure_future(tell(party.joint, answers))
    await until(lambda: all(party.served.of(run) for run in runs))
    return told


async def test_a_run_is_begun_before_its_claim_and_writes_nothing_until_it_is_here(world: World, house: House) -> None:
    party, run = await opened(world, house), await house.accept()
    told = await begun(world, party, run)
    await until(lambda: _is(world, run, "running"))
    (lease,) = party.served.of(run)
    assert not lease.claimed and lease.sequence == 0 and 0 < lease.deadline_s <= 60
    assert (await world.runs.fields(run))["seq"] == b"0" and len(party.served.told) == 1
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 3
    await until(lambda: ended(world, run))
    assert party.served.of(run) == [lease] and lease.claimed and party.served.told == [True, True]
    assert "claim" not in party.scripts.calls and (await world.runs.fields(run))["epoch"] == b"1"
    await until(lambda: not house.engines[0].in_hand)
    assert await world.pending(LANE_KEY, "router") == {}


async def test_two_runs_of_one_call_are_each_confirmed(world: World, house: House) -> None:
    party, runs = await opened(world, house), [await house.accept() for _ in range(2)]
    told = await begun(world, party, *runs)
    assert party.scripts.calls.count("verdicts") == 2
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 6
    for run in runs:
        await until(partial(ended, world, run))
        assert len(party.served.of(run)) == 1


async def test_a_closed_gate_costs_one_beginning_of_which_nothing_is_written(world: World, house: House) -> None:
    party, runs = await opened(world, house), [await house.accept() for _ in range(2)]
    await world.scripts.announce(P, "r1", 60_000, {POOL: 0}, 1)
    told = await begun(world, party, runs[0])
    party.scripts.reply.set()
    assert await told == [(True, "queued")] * 3
    assert await tell(party.joint, await answers_to(world, runs[1])) == [(True, "queued")] * 3
    await until(lambda: party.served.told == [True, False])
    (lost,) = party.served.of(runs[0])
    assert lost.cancelled.is_set() and not lost.claimed and not party.served.of(runs[1])
    await world.scripts.announce(P, "r1", 60_000, {POOL: 8}, 8)
    for run in runs:
        await until(partial(ended, world, run))
        assert (await world.runs.fields(run))["epoch"] == b"1" and party.served.of(run)[-1].claimed
    assert [len(party.served.of(run)) for run in runs] == [2, 1]


async def test_a_lost_reply_ends_what_was_begun_and_the_run_is_served_with_its_claim(
    world: World, house: House
) -> None:
    party, run = await opened(world, house), await house.accept()
    party.scripts.lost = 1
    told = await begun(world, party, run)
    party.scripts.reply.set()
    assert [type(one) for one in await told] == [Unavailable] * 3
    await until(lambda: party.served.told == [True, False])
    assert await tell(party.joint, await answers_to(world, run)) == [(False, "running")] * 3
    await until(lambda: ended(world, run))
    assert [lease.claimed for lease in party.served.of(run)] == [False, True]


async def test_a_cancel_that_comes_before_the_claim_is_here_is_heard_at_once(world: World, house: House) -> None:
    party, run = await opened(world, house), await house.accept()
    told = await begun(world, party, run)
    await until(lambda: _is(world, run, "running"))
    assert await world.scripts.cancel(run, "client") == "flagged"
    (lease,) = party.served.of(run)
    await until(lease.cancelled.is_set)
    assert not lease.claimed
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 3
    await until(lambda: _is(world, run, "ended"))
    assert (await world.runs.fields(run))["outcome"] == b"cancelled" and party.served.of(run) == [lease]


async def test_what_is_begun_of_a_run_that_ended_meanwhile_is_given_up(world: World, house: House) -> None:
    party, (gone, goes) = await opened(world, house), [await house.accept() for _ in range(2)]
    answers = [one for run in (gone, goes) for one in await answers_to(world, run)]
    last, fact = frame("last", kind="end", headers=b"{}"), ending("RequestCancelled", gone, "cancelled")
    assert await world.scripts.end(gone, "state", "checking", "0-0", last, fact) == "ok"
    party.scripts.reply.clear()
    told = asyncio.ensure_future(tell(party.joint, answers))
    await until(lambda: party.served.of(gone) and party.served.of(goes))
    party.scripts.reply.set()
    assert await told == [(False, "ended")] * 3 + [(True, "running")] * 3
    await until(lambda: ended(world, goes))
    await until(lambda: sorted(party.served.told) == [False, True, True])
    assert [[lease.claimed for lease in party.served.of(run)] for run in (gone, goes)] == [[False], [True]]


async def test_a_claim_that_brings_other_verdicts_than_were_given_here_is_served_anew(
    world: World, house: House
) -> None:
    party, run = await opened(world, house), await house.accept()
    other = b"what another process said"
    await world.scripts.verdict(replace(answer(run, "rules"), stored=other))
    told = await begun(world, party, run)
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 3
    await until(lambda: ended(world, run))
    await until(lambda: party.served.told == [True, False, True] or party.served.told == [True, True, False])
    first, second = party.served.of(run)
    assert not first.claimed and first.cancelled.is_set() and first.verdicts["rules"] != other
    assert second.claimed and second.verdicts["rules"] == other


async def test_work_that_fails_before_the_claim_is_tried_again_with_it(world: World, house: House) -> None:
    party, run = await opened(world, house), await house.accept()
    party.served.failures = 1
    told = await begun(world, party, run)
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 3
    await until(lambda: ended(world, run))
    assert [lease.claimed for lease in party.served.of(run)] == [False, True]


async def test_a_run_whose_body_or_a_verdict_is_not_at_hand_waits_for_its_claim(world: World, house: House) -> None:
    party, (bodiless, judged) = await opened(world, house), [await house.accept() for _ in range(2)]
    delivery = replace(await asked(world, bodiless), body=b"")
    answers = [replace(one, asked=delivery) for one in said(bodiless)] + (await answers_to(world, judged))[:2]
    await world.scripts.verdict(answer(judged, "persons"))
    party.scripts.reply.clear()
    told = asyncio.ensure_future(tell(party.joint, answers))
    for run in (bodiless, judged):
        await until(partial(_is, world, run, "running"))
    for _ in range(10):
        await CLOCK.sleep(0)
    assert not party.served.of(bodiless) and not party.served.of(judged)
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 5
    for run in (bodiless, judged):
        await until(partial(ended, world, run))
        assert [lease.claimed for lease in party.served.of(run)] == [True]


async def test_nothing_is_begun_before_its_claim_under_load(world: World, house: House) -> None:
    clock = FakeClock()
    party, run = await opened(world, house, clock), await house.accept()
    router = party.joint.routers[P]
    for _ in range(100):
        taker = router.offer(said(run), LANE_KEY)
        assert taker is not None
        router.settle(run, taker, LANE_KEY, None)
    clock.advance(0.25)
    party.scripts.reply.clear()
    told = asyncio.ensure_future(tell(party.joint, await answers_to(world, run)))
    await until(partial(_is, world, run, "running"))
    for _ in range(10):
        await CLOCK.sleep(0)
    assert not party.served.of(run)
    party.scripts.reply.set()
    assert await told == [(True, "running")] * 3
    await until(partial(ended, world, run))


async def _is(world: World, run: str, state: str) -> bool:
    return (await world.runs.fields(run)).get("state") == state.encode()
