"""The endpoints' breakers and latencies as all routers share them, and this process's part in it.

A success of an endpoint that had not failed costs nothing: no call of a store is on the path of a request unless its
endpoint fails, has failed, or is tried again. What the others found out is heard by `share`, once a second. While the
store is away this process goes on by the same rules (policy.breaker) on what it knows itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from base import logs, metrics
from base.clock import Clock
from policy import breaker as rules
from policy.breaker import Breaker, Limits
from schemas.errors import Code, Unavailable
from workers.router.choice import Place
from workers.router.pools import Pools, Use
from workers.router.ports import Breakers, Latencies
from workers.router.rules import Judged

log = logs.room("router")

#: Seconds between two calls of `share`.
SHARE_S = 1.0
#: Failures that are a measurement too: so long it took, at least. One that is quick says nothing of the engine's speed.
_TOO_LATE = frozenset({Code.upstream_timeout, Code.deadline_exceeded})
_STATES = {"closed": 0, "half_open": 1, "open": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What the routers share."""

    breakers: Breakers
    latencies: Latencies


class Health:
    """Told how calls ended, it keeps the places of `pools` as they stand."""

    def __init__(self, pools: Pools, peers: Peers, limits: Limits, clock: Clock) -> None:
        self._pools, self._peers, self._limits, self._clock = pools, peers, limits, clock

    async def may_call(self, place: Place) -> bool:
        """Whether the place that was picked may be called: a half-open one by one process at a time only. One that is
        left out and was picked all the same is the last of its pool."""
        now = self._now()
        if place.breaker.closed or place.breaker.not_before() > now:
            return True
        try:
            granted, after = await self._peers.breakers.probed(place.name)
        except Unavailable:
            granted, after = rules.probed(place.breaker, now, self._limits)
        self._set(place, after)
        return granted

    async def ended(self, use: Use, judged: Judged | None) -> None:
        """A call is over. judged: None when it succeeded."""
        place = use.place
        if judged is None:
            if place.breaker.failures or not place.breaker.closed:
                await self._succeeded(place, use.opens)
            return
        if judged.rest_ms:
            self._pools.rest(place, judged.rest_ms)
        if judged.broken:
            if judged.failure.code in _TOO_LATE and not use.answered_at:
                self._pools.measured(place, self._clock.monotonic() - use.began)
            await self._failed(place, use.opens)
        else:
            await self.silent(use)

    async def silent(self, use: Use) -> None:
        """A call is over that said nothing of the endpoint. As the probe it must not keep the next one waiting."""
        place = use.place
        if place.breaker.probe_ms == 0:
            return
        try:
            after = await self._peers.breakers.released(place.name, use.opens)
        except Unavailable:
            after = rules.released(place.breaker, use.opens)
        self._set(place, after)

    async def share(self) -> None:
        """Hand in what was measured, hear what the others know. Unavailable: this process goes on alone."""
        latencies, breakers = await asyncio.gather(
            self._peers.latencies.exchange(self._pools.handed_in()), self._peers.breakers.look()
        )
        self._pools.heard(breakers, latencies)
        now = self._clock.monotonic()
        for place in self._pools.all():
            self._show(place)
            metrics.gauge("headrace_endpoint_ttft_seconds", place.ttft(now), endpoint=place.name)

    async def _failed(self, place: Place, opens: int) -> None:
        before = place.breaker.opens
        try:
            after = await self._peers.breakers.failed(place.name, opens)
        except Unavailable:
            after = rules.failed(place.breaker, opens, self._now(), self._limits)
        self._set(place, after)
        if after.opens > max(before, opens):
            metrics.inc("headrace_endpoint_ejections_total", endpoint=place.name)
            seconds = round(place.not_before - self._clock.monotonic(), 1)
            log.warning("endpoint is left out", endpoint=place.name, seconds=seconds, in_a_row=after.opens)

    async def _succeeded(self, place: Place, opens: int) -> None:
        was_closed = place.breaker.closed
        try:
            after = await self._peers.breakers.succeeded(place.name, opens)
        except Unavailable:
            after = rules.succeeded(place.breaker, opens, self._now(), self._limits)
        self._set(place, after)
        if after.closed and not was_closed:
            log.info("endpoint is back", endpoint=place.name)

    def _set(self, place: Place, breaker: Breaker) -> None:
        place.set_breaker(breaker)
        self._show(place)

    def _show(self, place: Place) -> None:
        state = _STATES[place.breaker.state(self._now())]
        metrics.gauge("headrace_endpoint_breaker_state", state, endpoint=place.name)

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1000)
