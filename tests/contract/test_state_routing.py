"""Promises of the router's shared state, on the memory twins and on a real server in cluster mode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from base.clock import SystemClock
from base.ewma import Latency, Sample
from policy.breaker import NEW, Breaker, Limits
from runtime.client import Client
from schemas.errors import Unavailable
from state.breaker import KEY, RedisBreakers
from state.latency import KEY as LATENCIES
from state.latency import RedisLatencies
from state.memory import MemoryBreakers, MemoryLatencies
from tests.state_support import FakeClock, Gone
from workers.router.ports import Breakers, Latencies

LIMITS = Limits(failures=3, open_ms=60, open_most_ms=100, probe_ms=80)
FAR = Limits(failures=3, open_ms=60_000, open_most_ms=600_000, probe_ms=60_000)


@dataclass
class Subject:
    """Makers of the state, how its time passes, and what it says of the time."""

    breakers: Callable[[Limits], Breakers]
    latencies: Latencies
    wait: Callable[[float], Awaitable[None]]
    monotonic: Callable[[], float]


@pytest.fixture(params=["memory", "valkey"])
def subject(request: pytest.FixtureRequest, redis: Client) -> Subject:
    if request.param == "memory":
        clock = FakeClock()
        return Subject(
            lambda limits: MemoryBreakers(clock, limits), MemoryLatencies(clock), clock.sleep, clock.monotonic
        )
    real = SystemClock()
    return Subject(
        lambda limits: RedisBreakers(redis, real, limits), RedisLatencies(redis, real), real.sleep, real.monotonic
    )


async def opened(breakers: Breakers, name: str = "e1", opens: int = 0) -> Breaker:
    found = NEW
    for _ in range(3):
        found = await breakers.failed(name, opens)
    return found


async def test_failures_in_a_row_open_it_for_everybody(subject: Subject) -> None:
    breakers = subject.breakers(FAR)
    assert [(await breakers.failed("e1", 0)).closed for _ in range(3)] == [True, True, False]
    seen = (await breakers.look())["e1"]
    assert (seen.failures, seen.opens) == (3, 1)
    left = seen.until_ms - subject.monotonic() * 1000
    assert 30_000 < left <= 60_001
    assert not (await breakers.probed("e1"))[0]


async def test_a_success_between_starts_the_count_anew_and_leaves_nothing_behind(subject: Subject) -> None:
    breakers = subject.breakers(FAR)
    await breakers.failed("e1", 0)
    await breakers.failed("e1", 0)
    assert (await breakers.succeeded("e1", 0)).failures == 0
    assert await breakers.look() == {}
    assert (await breakers.failed("e1", 0)).failures == 1


async def test_an_endpoint_that_never_failed_may_be_called(subject: Subject) -> None:
    breakers = subject.breakers(FAR)
    assert (await breakers.probed("e1"))[0]
    assert await breakers.look() == {}


async def test_exactly_one_of_many_gets_the_probe_and_another_when_it_died(subject: Subject) -> None:
    breakers = subject.breakers(LIMITS)
    await opened(breakers)
    granted = await asks_until_granted(subject, breakers)
    assert granted == 1
    assert sum([one for one, _ in await asyncio.gather(*(breakers.probed("e1") for _ in range(20)))]) == 0
    assert await asks_until_granted(subject, breakers) == 1, "the prober died: its time was over"


async def asks_until_granted(subject: Subject, breakers: Breakers) -> int:
    """How many of 20 that asked at once were let through, in the first round in which one was."""
    for _ in range(200):
        answers = await asyncio.gather(*(breakers.probed("e1") for _ in range(20)))
        if any(granted for granted, _ in answers):
            return sum(granted for granted, _ in answers)
        await subject.wait(0.01)
    pytest.fail("nobody was let through")


async def test_the_probe_closes_it_or_opens_it_for_longer(subject: Subject) -> None:
    breakers = subject.breakers(LIMITS)
    await opened(breakers)
    await asks_until_granted(subject, breakers)
    longer = await breakers.failed("e1", 1)
    assert (longer.opens, longer.probe_ms) == (2, 0)
    assert longer.until_ms - longer.changed_ms == LIMITS.open_most_ms
    await asks_until_granted(subject, breakers)
    closed = await breakers.succeeded("e1", 2)
    assert closed.closed and (closed.failures, closed.opens) == (0, 2)
    assert (await breakers.probed("e1"))[0]


async def test_a_probe_that_says_nothing_is_given_back(subject: Subject) -> None:
    breakers = subject.breakers(replace(LIMITS, probe_ms=60_000))
    await opened(breakers)
    await asks_until_granted(subject, breakers)
    assert (await breakers.released("e1", 0)).probe_ms > 0, "what began before it opened is not the probe"
    given_back = await breakers.released("e1", 1)
    assert (given_back.probe_ms, given_back.opens, given_back.closed) == (0, 1, False)
    assert (await breakers.probed("e1"))[0]
    assert not (await breakers.probed("e1"))[0]


async def test_what_began_before_it_opened_is_old_news(subject: Subject) -> None:
    breakers = subject.breakers(FAR)
    await opened(breakers)
    assert (await breakers.succeeded("e1", 0)).opens == 1
    assert not (await breakers.failed("e1", 0)).closed
    assert (await breakers.look())["e1"].failures == 3


async def test_endpoints_have_breakers_of_their_own(subject: Subject) -> None:
    breakers = subject.breakers(FAR)
    await opened(breakers, "e1")
    await breakers.failed("a name with spaces", 0)
    seen = await breakers.look()
    assert {name: one.closed for name, one in seen.items()} == {"e1": False, "a name with spaces": True}


async def test_it_is_forgiven_in_time(subject: Subject) -> None:
    breakers = subject.breakers(Limits(failures=1, open_ms=10, open_most_ms=20, probe_ms=10))
    await breakers.failed("e1", 0)
    await asks_until_granted(subject, breakers)
    await breakers.succeeded("e1", 1)
    for _ in range(200):
        if (await breakers.look()).get("e1", NEW).opens == 0:
            return
        await subject.wait(0.01)
    pytest.fail("it was never forgiven")


STEPS = st.lists(
    st.tuples(st.sampled_from(("failed", "succeeded", "probed")), st.sampled_from(("a", "b")), st.integers(0, 2)),
    max_size=25,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS, open_ms=st.sampled_from((1, 3_600_000)))
async def test_the_script_and_the_rules_take_the_same_steps(
    redis: Client, steps: list[tuple[str, str, int]], open_ms: int
) -> None:
    """With times that are over at once, or never during the test, the outcome does not hang on the clock."""
    await redis.execute("DEL", KEY)
    limits = Limits(failures=2, open_ms=open_ms, open_most_ms=4 * 3_600_000, probe_ms=3_600_000)
    clock = FakeClock()
    real, twin = RedisBreakers(redis, SystemClock(), limits), MemoryBreakers(clock, limits)
    for step, name, opens in steps:
        clock.advance(0.005)
        if open_ms == 1:
            await SystemClock().sleep(0.005)
        if step == "probed":
            assert (await real.probed(name))[0] == (await twin.probed(name))[0]
            continue
        one, other = [await getattr(each, step)(name, opens) for each in (real, twin)]
        assert (one.failures, one.opens, one.closed) == (other.failures, other.opens, other.closed)


async def test_a_server_that_is_away_is_unavailable() -> None:
    breakers, latencies = RedisBreakers(Gone(), SystemClock(), LIMITS), RedisLatencies(Gone(), SystemClock())
    for call in (breakers.look(), breakers.failed("e", 0), breakers.probed("e"), latencies.exchange({})):
        with pytest.raises(Unavailable):
            await call


# --- latencies ----------------------------------------------------------------------------------------------------


async def test_what_one_measured_all_know(subject: Subject) -> None:
    await subject.latencies.exchange({"e1": Sample(0.2, 0.5), "a name with spaces": Sample(1.0, 1.0)})
    seen = await subject.latencies.exchange({})
    assert seen["e1"].ttft_s == pytest.approx(0.2)
    assert seen["e1"].peak_s == pytest.approx(0.5)
    assert abs(seen["e1"].at - subject.monotonic()) < 5
    assert set(seen) == {"e1", "a name with spaces"}


async def test_samples_are_folded_in_one_after_the_other(subject: Subject) -> None:
    await subject.latencies.exchange({"e1": Sample(0.1, 0.1)})
    seen = await subject.latencies.exchange({"e1": Sample(0.4, 0.9)})
    assert 0.1 <= seen["e1"].ttft_s < 0.3, "a moment later the new sample weighs little in the average"
    assert seen["e1"].peak_s == pytest.approx(0.9), "and a peak counts at once"
    seen = await subject.latencies.exchange({"e1": Sample(0.1, 0.1)})
    assert 0.5 < seen["e1"].peak_s <= 0.9, "which is forgotten slowly"


async def test_looking_hands_nothing_in(subject: Subject) -> None:
    assert await subject.latencies.exchange({}) == {}
    assert await subject.latencies.exchange({}) == {}


async def test_nothing_stays_on_the_server_for_ever(redis: Client) -> None:
    await RedisLatencies(redis, SystemClock()).exchange({"e1": Sample(0.2, 0.5)})
    await RedisBreakers(redis, SystemClock(), LIMITS).failed("e1", 0)
    for key in (LATENCIES, KEY):
        assert 0 < int(await redis.execute("PTTL", key)) <= 3_600_000


def test_the_average_follows_slowly_and_the_peak_at_once() -> None:
    known = Latency().after(Sample(1.0, 1.0), 0.0)
    assert known == Latency(1.0, 1.0, 0.0)
    later = known.after(Sample(0.0, 0.0), 10.0)
    assert later.ttft_s == later.peak_s == pytest.approx(1 / 2.718281828, rel=1e-6)
