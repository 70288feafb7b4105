"""Engines that are asked before the run is claimed, and what becomes of that call when it never is."""

from __future__ import annotations

import asyncio

import pytest

from base import metrics
from base.ids import SystemRandom
from providers.fake import Cut, Delay, FakeTransport, Hang, Head, Piece, Step
from schemas.events import RequestCompleted
from schemas.records import EndpointRecord
from state.memory import MemoryCatalog
from tests.router_support import (
    CLOCK,
    GOOD_STREAM,
    VERIFIER,
    MemoryLease,
    NoCredentials,
    alone,
    chunk,
    cleared_run,
    endpoint,
    sse,
    until,
)
from workers.router.app import make_router
from workers.router.rules import asked_early
from workers.router.settings import Early, RouterSettings

WORDS = Piece(sse(chunk("he"), chunk("llo")))
GOOD: list[Step] = [Head(), Piece(GOOD_STREAM)]


class Stage:
    """A router with one endpoint, and a run that is begun and not claimed yet."""

    def __init__(self, script: list[Step], one: EndpointRecord, early: Early = "own") -> None:
        settings = RouterSettings(early=early)
        self.transport = FakeTransport([script], CLOCK)
        hands = NoCredentials(), VERIFIER, CLOCK, SystemRandom(), alone()
        self.router = make_router(settings, self.transport, MemoryCatalog(endpoints=[one]), *hands)
        self.lease: MemoryLease = cleared_run()
        self.lease.claimed = False
        self.task = asyncio.create_task(self.router.handle(self.lease))

    def calls(self) -> int:
        return len(self.transport.calls)


@pytest.mark.parametrize(
    ("credential", "early", "asked"),
    [("", "own", True), ("c", "own", False), ("", "all", True), ("c", "all", True), ("", "none", False)],
)
def test_a_setting_says_which_endpoints_are_asked_early(credential: str, early: Early, asked: bool) -> None:
    assert asked_early(endpoint(credential=credential), early) == asked


async def test_an_engine_of_ours_answers_before_the_claim_and_the_answer_is_kept_until_it_is_here() -> None:
    stage = Stage(GOOD, endpoint())
    await until(lambda: stage.calls() == 1)
    assert not stage.task.done() and not stage.lease.sent
    stage.lease.tell(claimed=True)
    await stage.task
    assert isinstance(stage.lease.fact, RequestCompleted) and stage.calls() == 1


async def test_words_that_came_before_the_claim_leave_in_order_once_it_is_here() -> None:
    end = Piece(sse(chunk(finish="stop"), "[DONE]"))
    stage = Stage([Head(), WORDS, Delay(0.01), WORDS, Delay(0.01), end], endpoint())
    await until(lambda: stage.lease.held == 1)
    assert not stage.lease.sent
    stage.lease.tell(claimed=True)
    await stage.task
    assert stage.lease.text.count(b'"he"') == 2 and isinstance(stage.lease.fact, RequestCompleted)
    assert stage.lease.sent[0].headers["x-headrace-endpoint"] == "e1" and stage.lease.sequence == 6


async def test_an_engine_with_a_credential_is_asked_once_the_run_is_claimed() -> None:
    stage = Stage(GOOD, endpoint(credential="c"))
    await until(lambda: stage.router.used() == {"e1": 1})
    assert not stage.calls()
    stage.lease.tell(claimed=True)
    await stage.task
    assert isinstance(stage.lease.fact, RequestCompleted) and stage.calls() == 1


@pytest.mark.parametrize("script", [[Hang()], [Head(), Hang()], [Head(), WORDS, Hang()], [Head(), WORDS, Cut()], GOOD])
async def test_a_claim_that_does_not_come_closes_the_call_and_frees_its_slot(script: list[Step]) -> None:
    one = endpoint(f"lost-{len(str(script))}")
    stage = Stage(script, one)
    await until(lambda: stage.calls() == 1)
    stage.lease.tell(claimed=False)
    await asyncio.wait_for(stage.task, 20)
    assert not stage.lease.sent and not stage.transport.open_now and not stage.router.used()
    line = f'headrace_upstream_attempts_total{{endpoint="{one.endpoint}",outcome="unclaimed"}} 1.0'
    assert line in metrics.exposition().decode()


async def test_an_engine_that_waits_for_a_claim_which_does_not_come_is_never_asked() -> None:
    stage = Stage(GOOD, endpoint(), early="none")
    await until(lambda: stage.router.used() == {"e1": 1})
    stage.lease.tell(claimed=False)
    await asyncio.wait_for(stage.task, 20)
    assert not stage.calls() and not stage.lease.sent and not stage.router.used()


async def test_a_run_that_is_cancelled_before_its_claim_ends_as_cancelled_once_it_is_here() -> None:
    stage = Stage([Hang()], endpoint())
    await until(lambda: stage.calls() == 1)
    stage.lease.cancelled.set()
    await until(lambda: not stage.transport.open_now)
    assert not stage.lease.sent
    stage.lease.tell(claimed=True)
    await stage.task
    assert stage.lease.failure.code == "cancelled"
