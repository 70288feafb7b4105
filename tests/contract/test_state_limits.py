"""Promises of ports.Limits, on the memory twin and on a real server in cluster mode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from base.clock import SystemClock
from runtime.client import Client, ServerError
from schemas.errors import Unavailable
from schemas.ports import Limits, Reservation, Scope
from state.limits import RedisLimits
from state.memory import MemoryLimits
from tests.state_support import Breaking, FakeClock, Gone, connect

KEY = "key:00000000000000aa"
TTL_MS = 60_000


def want(run: str, *, rpm: int = 0, parallel: int = 0, ttl: int = TTL_MS, tenant: str = "acme") -> Reservation:
    scope = Scope(name=KEY, requests_per_minute=rpm, concurrency=parallel)
    return Reservation(run=run, tenant=tenant, scopes=(scope,), ttl_ms=ttl)


@dataclass
class Subject:
    """Limits, and how its time passes."""

    limits: Limits
    wait: Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "valkey"])
def subject(request: pytest.FixtureRequest, redis: Client) -> Subject:
    if request.param == "memory":
        clock = FakeClock()
        return Subject(MemoryLimits(clock), clock.sleep)
    return Subject(RedisLimits(redis), SystemClock().sleep)


async def grants(limits: Limits, *wanted: Reservation) -> list[bool]:
    return [answer.granted for answer in await limits.reserve(wanted)]


async def test_requests_per_minute_are_granted_up_to_the_limit_and_not_beyond(subject: Subject) -> None:
    answers = await subject.limits.reserve([want(f"run{n}", rpm=3) for n in range(5)])
    assert [answer.granted for answer in answers] == [True, True, True, False, False]
    assert [answer.remaining_requests for answer in answers] == [2, 1, 0, 0, 0]
    assert answers[3].limit == "requests_per_minute"
    assert answers[3].scope == KEY
    assert answers[3].limit_requests == 3


async def test_a_limit_holds_across_calls_as_within_one(subject: Subject) -> None:
    assert await grants(subject.limits, want("one", rpm=2)) == [True]
    assert await grants(subject.limits, want("two", rpm=2)) == [True]
    refused = (await subject.limits.reserve([want("three", rpm=2)]))[0]
    assert not refused.granted
    assert 0 < refused.retry_after_ms <= 60_000


async def test_concurrency_is_freed_by_settle_but_the_request_stays_counted(subject: Subject) -> None:
    assert await grants(subject.limits, want("one", rpm=2, parallel=1), want("two", rpm=2, parallel=1)) == [True, False]
    await subject.limits.settle("acme", "one", [KEY])
    assert await grants(subject.limits, want("three", rpm=2, parallel=1)) == [True]
    await subject.limits.settle("acme", "three", [KEY])
    answer = (await subject.limits.reserve([want("four", rpm=2, parallel=1)]))[0]
    assert (answer.granted, answer.limit) == (False, "requests_per_minute")


async def test_refusal_by_concurrency_says_so_and_when_to_come_back(subject: Subject) -> None:
    answers = await subject.limits.reserve([want("one", parallel=1), want("two", parallel=1)])
    assert (answers[1].limit, answers[1].scope) == ("concurrency", KEY)
    assert answers[1].retry_after_ms > 0


async def test_reserving_twice_is_one_hold(subject: Subject) -> None:
    for _ in range(3):
        assert await grants(subject.limits, want("one", rpm=2, parallel=2)) == [True]
    assert await grants(subject.limits, want("two", rpm=2, parallel=2), want("three", rpm=2, parallel=2)) == [
        True,
        False,
    ]


async def test_the_same_run_twice_in_one_batch_is_one_hold(subject: Subject) -> None:
    wanted = [want("one", rpm=2), want("one", rpm=2), want("two", rpm=2), want("three", rpm=2)]
    assert await grants(subject.limits, *wanted) == [True, True, True, False]


async def test_a_granted_run_stays_granted_when_the_limit_shrinks(subject: Subject) -> None:
    await subject.limits.reserve([want("one", rpm=5, parallel=5), want("two", rpm=5, parallel=5)])
    assert await grants(subject.limits, want("two", rpm=1, parallel=1)) == [True]


async def test_a_reserve_redelivered_after_settle_holds_nothing(subject: Subject) -> None:
    await subject.limits.reserve([want("one", parallel=1)])
    await subject.limits.settle("acme", "one", [KEY])
    assert await grants(subject.limits, want("one", parallel=1)) == [True]
    assert await grants(subject.limits, want("two", parallel=1)) == [True]


async def test_a_run_settled_before_its_first_reserve_holds_nothing(subject: Subject) -> None:
    await subject.limits.settle("acme", "one", [KEY])
    await subject.limits.reserve([want("one", rpm=1, parallel=1)])
    assert await grants(subject.limits, want("two", rpm=1, parallel=1)) == [True]


async def test_settling_often_is_settling_once(subject: Subject) -> None:
    await subject.limits.reserve([want("one", parallel=2), want("two", parallel=2)])
    for _ in range(3):
        await subject.limits.settle("acme", "one", [KEY])
    assert await grants(subject.limits, want("three", parallel=2), want("four", parallel=2)) == [True, False]


async def test_an_expired_reservation_frees_itself(subject: Subject) -> None:
    assert await grants(subject.limits, want("one", parallel=1, ttl=40), want("two", parallel=1)) == [True, False]
    for _ in range(100):
        await subject.wait(0.02)
        if await grants(subject.limits, want("three", parallel=1)) == [True]:
            return
    pytest.fail("the reservation never freed itself")


async def test_organizations_never_share_a_limit(subject: Subject) -> None:
    wanted = [want("one", rpm=1), want("two", rpm=1, tenant="globex"), want("three", rpm=1), want("four", rpm=1)]
    assert await grants(subject.limits, *wanted) == [True, True, False, False]


async def test_a_run_refused_in_one_scope_holds_nothing_in_the_others(subject: Subject) -> None:
    wide = Scope(name="org", requests_per_minute=3, concurrency=3)
    narrow = Scope(name=KEY, requests_per_minute=1, concurrency=1)
    both = [Reservation(run=f"run{n}", tenant="acme", scopes=(wide, narrow), ttl_ms=TTL_MS) for n in range(4)]
    assert await grants(subject.limits, *both) == [True, False, False, False]
    other = [Reservation(run=f"other{n}", tenant="acme", scopes=(wide,), ttl_ms=TTL_MS) for n in range(3)]
    assert await grants(subject.limits, *other) == [True, True, False]


async def test_the_figures_are_of_the_tightest_scope(subject: Subject) -> None:
    scopes = (Scope(name="org", requests_per_minute=100), Scope(name=KEY, requests_per_minute=7))
    answer = (await subject.limits.reserve([Reservation(run="r", tenant="acme", scopes=scopes, ttl_ms=TTL_MS)]))[0]
    assert (answer.limit_requests, answer.remaining_requests) == (7, 6)
    assert 0 < answer.reset_requests_ms <= 60_000


async def test_a_run_without_limited_scopes_is_granted(subject: Subject) -> None:
    free = Reservation(run="one", tenant="acme", scopes=(), ttl_ms=TTL_MS)
    answers = await subject.limits.reserve([free, want("two", rpm=1), want("three", rpm=1)])
    assert [answer.granted for answer in answers] == [True, True, False]
    assert answers[0].limit_requests == -1
    await subject.limits.settle("acme", "one", ())


async def test_the_minute_slides_by_the_clock_and_frees_one_by_one() -> None:
    clock = FakeClock()
    limits = MemoryLimits(clock)
    await limits.reserve([want("one", rpm=2)])
    clock.advance(30)
    await limits.reserve([want("two", rpm=2)])
    refused = (await limits.reserve([want("three", rpm=2)]))[0]
    assert refused.retry_after_ms == 30_000
    clock.advance(30)
    assert await grants(limits, want("three", rpm=2), want("four", rpm=2)) == [True, False]


async def test_the_servers_minute_slides_too(redis: Client) -> None:
    limits = RedisLimits(redis)
    await limits.reserve([want(f"run{n}", rpm=3) for n in range(3)])
    seconds, _ = await redis.execute("TIME")
    now = int(seconds) * 1000
    for n, age in enumerate((70_000, 50_000, 10_000)):
        await redis.execute("ZADD", f"{{o:acme}}:rpm:{KEY}", now - age, f"run{n}")
    assert await grants(limits, want("next", rpm=3)) == [True]
    refused = (await limits.reserve([want("late", rpm=3)]))[0]
    assert not refused.granted
    assert 8_000 <= refused.retry_after_ms <= 10_000
    assert await redis.execute("ZSCORE", f"{{o:acme}}:rpm:{KEY}", "run0") is None


async def test_three_clients_in_parallel_never_pass_a_limit(valkey_cluster: str, redis: Client) -> None:
    clients = [await connect(valkey_cluster) for _ in range(3)]
    replicas = [RedisLimits(client) for client in clients]
    wanted = [want(f"run{n}", rpm=50, parallel=40) for n in range(300)]
    calls = [replicas[n % 3].reserve(wanted[n : n + 5]) for n in range(0, 300, 5)]
    answers = [answer for batch in await asyncio.gather(*calls) for answer in batch]
    assert sum(answer.granted for answer in answers) == 40
    assert await redis.execute("ZCARD", f"{{o:acme}}:held:{KEY}") == 40
    for client in clients:
        await client.close()


async def test_every_key_of_limits_expires(redis: Client) -> None:
    limits = RedisLimits(redis)
    await limits.reserve([want("one", rpm=5, parallel=5), want("two", rpm=5, parallel=5, ttl=90_000)])
    await limits.settle("acme", "one", [KEY])
    keys = [name.decode() for name in await redis.execute("KEYS", "*")]
    assert sorted(keys) == sorted([f"{{o:acme}}:rpm:{KEY}", f"{{o:acme}}:held:{KEY}", "{o:acme}:settled"])
    lives = {name: await redis.execute("PTTL", name) for name in keys}
    assert all(0 < life <= 600_000 for life in lives.values())
    assert lives[f"{{o:acme}}:held:{KEY}"] > 60_000


async def members(redis: Client) -> dict[str, list[bytes]]:
    return {key.decode(): await redis.execute("ZRANGE", key, 0, -1) for key in sorted(await redis.execute("KEYS", "*"))}


async def test_an_error_at_any_call_of_reserve_is_mended_by_asking_again(redis: Client) -> None:
    org = Scope(name="org", requests_per_minute=9)
    narrow = Scope(name=KEY, requests_per_minute=3, concurrency=2)
    wanted = [Reservation(run=f"run{n}", tenant="acme", scopes=(org, narrow), ttl_ms=TTL_MS) for n in range(4)]
    reference = await grants(RedisLimits(redis), *wanted)
    expected = await members(redis)
    nth, reached = 0, True
    while reached:
        nth += 1
        await redis.execute("FLUSHALL")
        await RedisLimits(redis).reserve([])
        breaking = Breaking(redis, nth)
        limits = RedisLimits(breaking)
        try:
            await limits.reserve(wanted)
        except ServerError:
            assert breaking.reached
        assert await grants(limits, *wanted) == reference
        assert await members(redis) == expected
        reached = breaking.reached
    assert reference == [True, True, False, False]
    assert nth > 20


async def test_what_a_half_done_reserve_left_goes_when_the_run_is_refused_after_all(redis: Client) -> None:
    held = f"{{o:acme}}:held:{KEY}"
    limits = RedisLimits(redis)
    seconds, _ = await redis.execute("TIME")
    await redis.execute("ZADD", held, (int(seconds) + 60) * 1000, "half")
    await limits.reserve(
        [Reservation(run="other", tenant="acme", scopes=(Scope(name="org", concurrency=1),), ttl_ms=TTL_MS)]
    )
    scopes = (Scope(name="org", concurrency=1), Scope(name=KEY, concurrency=5))
    assert await grants(limits, Reservation(run="half", tenant="acme", scopes=scopes, ttl_ms=TTL_MS)) == [False]
    assert await redis.execute("ZSCORE", held, "half") is None


async def test_an_error_at_any_call_of_settle_is_mended_by_settling_again(redis: Client) -> None:
    nth, reached = 0, True
    while reached:
        nth += 1
        await redis.execute("FLUSHALL")
        await RedisLimits(redis).reserve([want("one", rpm=5, parallel=5), want("two", rpm=5, parallel=5)])
        breaking = Breaking(redis, nth)
        limits = RedisLimits(breaking)
        try:
            await limits.settle("acme", "one", [KEY])
        except ServerError:
            assert breaking.reached
        await limits.settle("acme", "one", [KEY])
        assert await members(redis) == {
            f"{{o:acme}}:held:{KEY}": [b"two"],
            f"{{o:acme}}:rpm:{KEY}": [b"one", b"two"],
            "{o:acme}:settled": [b"one"],
        }
        reached = breaking.reached
    assert nth > 5


async def test_limits_are_unavailable_when_the_server_is() -> None:
    with pytest.raises(Unavailable):
        await RedisLimits(Gone()).reserve([want("one", rpm=1)])


async def test_a_tenant_name_cannot_leave_its_slot(redis: Client) -> None:
    for name in ("", "a}b", "{x"):
        with pytest.raises(ValueError, match="braces"):
            await RedisLimits(redis).reserve([want("one", rpm=1, tenant=name)])
