"""Promises of the routers' reports (state/inflight.py): the twin and a real server; and of who writes them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from base.clock import SystemClock
from console.traffic import Reporter
from runtime.client import Client
from schemas.records import EndpointRecord
from state.inflight import KEY, RedisInflight, Report, Use
from state.memory import MemoryCatalog, MemoryInflight

Inflight = MemoryInflight | RedisInflight


@pytest.fixture(params=["memory", "valkey"])
def inflight(request: pytest.FixtureRequest, redis: Client) -> Inflight:
    return MemoryInflight(SystemClock()) if request.param == "memory" else RedisInflight(redis)


async def test_an_endpoint_that_nobody_reports_on_is_idle(inflight: Inflight) -> None:
    assert await inflight.use("e1", await inflight.now_ms()) == Use()


async def test_an_endpoint_is_idle_once_every_router_has_reported_without_it(inflight: Inflight) -> None:
    now = await inflight.now_ms()
    await inflight.report("r1", Report(at_ms=now, used={"e1": 2, "e2": 1}))
    await inflight.report("r2", Report(at_ms=now, known=("e1",)))
    assert await inflight.use("e1", now) == Use(requests=2, unsure=1)
    await inflight.report("r1", Report(at_ms=now, used={"e2": 1}))
    assert await inflight.use("e1", now) == Use(unsure=1)
    await inflight.report("r2", Report(at_ms=now))
    assert (await inflight.use("e1", now)).idle
    assert not (await inflight.use("e2", now)).idle


async def test_a_report_from_before_the_withdrawal_proves_nothing(inflight: Inflight) -> None:
    now = await inflight.now_ms()
    await inflight.report("r1", Report(at_ms=now - 1))
    assert await inflight.use("e1", now) == Use(unsure=1)


async def test_a_router_that_left_or_fell_silent_counts_no_more(inflight: Inflight) -> None:
    now = await inflight.now_ms()
    await inflight.report("r1", Report(at_ms=now, used={"e1": 1}))
    await inflight.report("dead", Report(at_ms=now - 15_001, used={"e1": 1}))
    await inflight.report("late", Report(at_ms=now - 10_000, used={"e1": 1}))
    assert (await inflight.use("e1", now)).requests == 2
    await inflight.leave("r1")
    await inflight.leave("late")
    assert (await inflight.use("e1", now)).idle


async def test_a_report_that_cannot_be_read_is_a_router_one_knows_nothing_of(redis: Client) -> None:
    inflight = RedisInflight(redis, lost_ms=10**15)
    await redis.execute("HSET", KEY, "newer", b"{}")
    assert await inflight.use("e1", 1) == Use(unsure=1)


@dataclass
class Uses:
    """What a router has in flight."""

    used: dict[str, int]

    def __call__(self) -> dict[str, int]:
        return self.used


async def test_a_reporter_names_what_it_could_still_choose_for_one_more_round(redis: Client) -> None:
    inflight, uses = RedisInflight(redis), Uses({"e1": 1})
    endpoint = EndpointRecord(endpoint="e1", deployment="d", pool="p", model="m", url="http://127.0.0.1:1/v1")
    catalog = MemoryCatalog(endpoints=[endpoint])
    reporter = Reporter(inflight, catalog, "r1", uses)
    await reporter.report()
    await catalog.withdraw(endpoints=["e1"])
    now = await inflight.now_ms()
    assert await inflight.use("e1", now + 1) == Use(requests=1, unsure=1)
    await reporter.report()  # the list without it was read, an older one may still be in somebody's hands
    assert await inflight.use("e1", now) == Use(requests=1, unsure=1)
    await reporter.report()
    assert await inflight.use("e1", now) == Use(requests=1)
    uses.used = {}
    await reporter.report()
    assert (await inflight.use("e1", now)).idle
    await reporter.leave()
