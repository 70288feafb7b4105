"""What a router does about endpoints that fail, and how the others hear of it; on the scripted transport."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from base.ewma import Latency, Sample
from base.ids import SystemRandom
from policy.breaker import Breaker
from providers.fake import Cut, Delay, FakeTransport, Hang, Head, Piece, Refuse, Script
from schemas.errors import Code, Unavailable
from schemas.events import Attempt, RequestCompleted, RequestFailed
from schemas.records import EndpointRecord
from state.memory import MemoryBreakers, MemoryCatalog, MemoryLatencies
from tests.router_support import (
    CLOCK,
    GOOD_STREAM,
    VERIFIER,
    MemoryLease,
    alone,
    cleared_run,
    endpoint,
    until,
)
from tests.unit.test_router_handler import PlainCredentials
from workers.router.app import make_router
from workers.router.handlers import Router
from workers.router.health import Peers
from workers.router.settings import BreakerSettings, RouterSettings

GOOD: Script = [Head(), Piece(GOOD_STREAM)]
TWO = (endpoint("e1"), endpoint("e2"))
BREAKER = BreakerSettings(failures=2, open_s=0.05, open_most_s=0.1, probe_s=5)
SETTINGS = RouterSettings(
    connect_timeout_s=0.05, first_byte_timeout_s=0.05, idle_timeout_s=0.05, strategy="round_robin", breaker=BREAKER
)
LONG = SETTINGS.model_copy(update={"breaker": BreakerSettings(failures=2, open_s=60)})


class ByEndpoint(FakeTransport):
    """Plays a script of its own for each endpoint, told by the URL; `calls` counts them by name."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        super().__init__([GOOD], CLOCK)
        self.by_name = dict(scripts)

    def called(self, name: str) -> int:
        return sum(name in call.url for call in self.calls)

    def script_of(self, url: str) -> Script:
        return next((script for name, script in self.by_name.items() if name in url), GOOD)


class Stage:
    """A router whose endpoints are named in their URLs."""

    def __init__(
        self,
        scripts: Mapping[str, Script],
        endpoints: Sequence[EndpointRecord] = TWO,
        settings: RouterSettings = SETTINGS,
        peers: Peers | None = None,
    ) -> None:
        named = [endpoint(one.endpoint, url=f"http://127.0.0.1:9/{one.endpoint}/v1", up=one.up) for one in endpoints]
        self.transport = ByEndpoint(scripts)
        self.router: Router = make_router(
            settings,
            self.transport,
            MemoryCatalog(endpoints=named),
            PlainCredentials(),
            VERIFIER,
            CLOCK,
            SystemRandom(),
            peers or alone(settings),
        )

    async def run(self) -> MemoryLease:
        lease = cleared_run()
        await self.router.handle(lease)
        return lease

    async def well(self, count: int) -> list[str]:
        """So many runs that must succeed; which endpoint served each."""
        served = []
        for _ in range(count):
            fact = (await self.run()).fact
            assert isinstance(fact, RequestCompleted)
            served.append(fact.endpoint)
        return served

    def state(self, name: str) -> Breaker:
        return next(one.breaker for one in self.router.pools.all() if one.name == name)


async def test_an_endpoint_that_fails_again_and_again_is_left_out() -> None:
    stage = Stage({"e1": [Refuse()]}, settings=LONG)
    assert set(await stage.well(20)) == {"e2"}
    assert stage.transport.called("e1") == 2 and not stage.state("e1").closed


async def test_a_good_answer_in_between_keeps_it_in() -> None:
    stage = Stage({}, settings=LONG)
    await stage.well(2)
    for _ in range(3):
        stage.transport.by_name["e1"] = [Refuse()]
        while stage.state("e1").failures == 0:
            await stage.well(1)
        stage.transport.by_name["e1"] = GOOD
        await stage.well(4)
        assert stage.state("e1").failures == 0
    assert stage.state("e1").closed and stage.transport.called("e1") > 3


async def test_one_request_tries_it_again_and_brings_it_back() -> None:
    stage = Stage({"e1": [Refuse()]})
    await stage.well(6)
    stage.transport.by_name["e1"] = [Head(), Delay(0.05), Piece(GOOD_STREAM)]
    await until(lambda: stage.state("e1").state(int(CLOCK.monotonic() * 1000)) == "half_open")
    calls = stage.transport.called("e1")
    served = await asyncio.gather(*(stage.well(1) for _ in range(10)))
    assert served.count(["e1"]) == 1 == stage.transport.called("e1") - calls, "exactly one probe"
    assert stage.state("e1").closed
    assert set(await stage.well(4)) == {"e1", "e2"}


@pytest.mark.parametrize("shared", [True, False])
async def test_requests_that_an_engine_refuses_cannot_keep_it_out(shared: bool) -> None:
    """The probe falls to whoever comes: one that sends nothing but wrong requests would get it again and again."""
    away = Peers(breakers=Away(), latencies=MemoryLatencies(CLOCK))
    stage = Stage({"e1": [Refuse()]}, peers=None if shared else away)
    await stage.well(6)
    stage.transport.by_name["e1"] = [Head(400), Piece(b'{"error": {"message": "wrong"}}')]
    await until(lambda: stage.state("e1").state(int(CLOCK.monotonic() * 1000)) == "half_open")
    calls = stage.transport.called("e1")
    for _ in range(3):
        while stage.transport.called("e1") == calls:
            await stage.run()
        calls += 1
    assert not stage.state("e1").closed, "nor does it bring it back"
    stage.transport.by_name["e1"] = GOOD
    await stage.well(2)
    assert stage.state("e1").closed


async def test_a_failed_probe_costs_one_request_a_retry_and_leaves_it_out_for_longer() -> None:
    stage = Stage({"e1": [Refuse()]})
    await stage.well(6)
    await until(lambda: stage.state("e1").state(int(CLOCK.monotonic() * 1000)) == "half_open")
    assert set(await stage.well(4)) == {"e2"}
    assert stage.state("e1").opens == 2 and stage.transport.called("e1") == 3


async def test_what_one_router_found_out_the_others_hear() -> None:
    peers = alone(LONG)
    one, other = Stage({"e1": [Refuse()]}, settings=LONG, peers=peers), Stage({}, settings=LONG, peers=peers)
    await other.well(2)
    await one.well(6)
    await other.router.share()
    assert set(await other.well(6)) == {"e2"}


async def test_only_one_of_two_routers_sends_the_probe() -> None:
    peers = alone(SETTINGS)
    stages = [Stage({"e1": [Refuse()]}, peers=peers) for _ in range(2)]
    await stages[0].well(6)
    await stages[1].router.share()
    await stages[1].well(2)
    await until(lambda: stages[0].state("e1").state(int(CLOCK.monotonic() * 1000)) == "half_open")
    for stage in stages:
        stage.transport.by_name["e1"] = [Head(), Delay(0.1), Piece(GOOD_STREAM)]
    before = sum(stage.transport.called("e1") for stage in stages)
    await asyncio.gather(*(stage.well(1) for stage in stages for _ in range(5)))
    assert sum(stage.transport.called("e1") for stage in stages) - before == 1


async def test_the_last_endpoint_of_a_pool_is_called_whatever_it_does() -> None:
    stage = Stage({"e1": [Refuse()]}, endpoints=TWO[:1], settings=LONG)
    for _ in range(5):
        assert (await stage.run()).failure.code == Code.upstream_error
    assert stage.transport.called("e1") == 5 and not stage.state("e1").closed
    stage.transport.by_name["e1"] = GOOD
    assert await stage.well(1) == ["e1"]
    assert stage.state("e1").closed, "a finished stream closes it"


async def test_an_engine_that_hangs_is_left_out_and_no_request_fails() -> None:
    stage = Stage({"e1": [Hang()]}, settings=LONG)
    assert set(await stage.well(12)) == {"e2"}
    assert stage.transport.called("e1") == 2


async def test_an_engine_that_breaks_off_its_answers_is_left_out() -> None:
    stage = Stage({"e1": [Head(), Piece(GOOD_STREAM[:200]), Delay(0.02), Cut()]}, settings=LONG)
    codes = [lease.fact for lease in [await stage.run() for _ in range(8)]]
    assert sum(isinstance(fact, RequestFailed) for fact in codes) == 2 == stage.transport.called("e1")


async def test_a_request_that_is_wrong_itself_speaks_against_nobody() -> None:
    stage = Stage({"e1": [Head(400)], "e2": [Head(404)]}, settings=LONG)
    for _ in range(10):
        await stage.run()
    assert stage.state("e1").failures == 0 == stage.state("e2").failures


async def test_a_pause_that_an_engine_asked_for_is_no_failure() -> None:
    stage = Stage({"e1": [Head(429, {"retry-after": "60"})]}, settings=LONG)
    assert set(await stage.well(12)) == {"e2"}
    assert stage.transport.called("e1") == 1 and stage.state("e1").failures == 0


class Away:
    """A store that does not answer."""

    async def failed(self, endpoint: str, opens: int) -> Breaker:
        raise Unavailable("away")

    async def succeeded(self, endpoint: str, opens: int) -> Breaker:
        raise Unavailable("away")

    async def released(self, endpoint: str, opens: int) -> Breaker:
        raise Unavailable("away")

    async def probed(self, endpoint: str) -> tuple[bool, Breaker]:
        raise Unavailable("away")

    async def look(self) -> Mapping[str, Breaker]:
        raise Unavailable("away")


async def test_without_the_store_a_router_goes_on_by_the_same_rules() -> None:
    peers = Peers(breakers=Away(), latencies=MemoryLatencies(CLOCK))
    stage = Stage({"e1": [Refuse()]}, peers=peers)
    await stage.well(8)
    assert stage.transport.called("e1") == 2
    stage.transport.by_name["e1"] = GOOD
    await until(lambda: stage.state("e1").state(int(CLOCK.monotonic() * 1000)) == "half_open")
    await stage.well(2)
    assert stage.state("e1").closed


async def test_what_is_measured_is_handed_in_and_heard() -> None:
    latencies = MemoryLatencies(CLOCK)
    peers = Peers(breakers=MemoryBreakers(CLOCK, BREAKER.limits()), latencies=latencies)
    stage = Stage({"e1": [Delay(0.03), *GOOD]}, peers=peers)
    await stage.well(2)
    await stage.router.share()
    known = await latencies.exchange({})
    assert known["e1"].ttft_s >= 0.03 > known["e2"].ttft_s
    await latencies.exchange({"e2": Sample(9.0, 9.0)})
    await stage.router.share()
    place = next(one for one in stage.router.pools.all() if one.name == "e2")
    assert place.peak_s == 9.0


async def test_a_call_that_came_too_late_is_measured_and_one_that_failed_at_once_is_not() -> None:
    stage = Stage({"e1": [Hang()], "e2": [Refuse()]}, settings=LONG)
    await stage.run()
    late, quick = (next(one for one in stage.router.pools.all() if one.name == name) for name in ("e1", "e2"))
    assert late.ttft_s >= 0.05 and quick.ttft_s == 0.0 and quick.breaker.failures == 1


async def test_a_success_asks_no_store_for_anything() -> None:
    class Silent(MemoryLatencies):
        async def exchange(self, samples: Mapping[str, Sample]) -> Mapping[str, Latency]:
            raise AssertionError("not on the path of a request")

    stage = Stage({}, peers=Peers(breakers=Away(), latencies=Silent(CLOCK)))
    assert set(await stage.well(4)) == {"e1", "e2"}


# --- what is recorded -----------------------------------------------------------------------------------------------


def why_of(attempt: Attempt) -> list[tuple[str, str]]:
    assert attempt.why is not None and (attempt.why.pool, attempt.why.strategy) == ("pool", "round_robin")
    return [(seen.endpoint, seen.state) for seen in attempt.why.seen]


async def test_every_attempt_says_what_it_was_chosen_from() -> None:
    down = endpoint("e3", up=False)
    stage = Stage({"e1": [Refuse()]}, endpoints=(*TWO, down), settings=LONG)
    facts = [(await stage.run()).fact for _ in range(2)]
    first, second = next(fact.attempts for fact in facts if isinstance(fact, RequestCompleted) and fact.attempts[1:])
    assert why_of(first) == [("e1", "fit"), ("e2", "fit"), ("e3", "down")]
    assert why_of(second) == [("e1", "tried"), ("e2", "fit"), ("e3", "down")]
    await stage.well(3)
    last = (await stage.run()).fact
    assert isinstance(last, RequestCompleted)
    assert why_of(last.attempts[0]) == [("e1", "open"), ("e2", "fit"), ("e3", "down")]


async def test_a_run_that_no_endpoint_could_serve_says_why_too() -> None:
    stage = Stage({}, endpoints=[endpoint("e1", up=False)])
    fact = (await stage.run()).fact
    assert isinstance(fact, RequestFailed)
    (attempt,) = fact.attempts
    assert (attempt.endpoint, attempt.outcome) == ("", Code.no_engine) and why_of(attempt) == [("e1", "down")]
