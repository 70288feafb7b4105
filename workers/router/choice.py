"""Which endpoint is called next, and why: the places of a pool as this process sees them. Pure; time is passed in.

An endpoint may be called when it is up, was not tried for this run, has a free slot, and is neither left out by its
breaker, nor resting as it asked, nor silent for long. When none is left, in this order: a silent or resting one; if
every one is left out, the one whose time is over first, so that the last way of a pool is never closed.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from enum import Enum

from policy.breaker import NEW, Breaker
from schemas.events import Seen
from schemas.records import EndpointRecord
from workers.router.strategies import Strategy
from workers.router.strategies.candidate import Candidate, Draw

#: Endpoints that a run's record names, the chosen one first; a pool may have more. Each costs about 2 us.
RECORDED = 5


class Absent(Enum):
    """Why no endpoint was chosen."""

    none = "none"  #: no endpoint is up that was not tried
    busy = "busy"  #: there are some, without a free slot


@dataclass(slots=True, kw_only=True, eq=False)
class Place(Candidate):
    """One endpoint as this process uses it. limit: requests it may have there. not_before: when its breaker lets
    requests in again, rest_until: when it wants some again; monotonic seconds. calls: those without a first byte yet,
    number -> when they were sent, oldest first."""

    endpoint: EndpointRecord
    limit: int
    breaker: Breaker = NEW
    not_before: float = 0.0
    rest_until: float = 0.0
    calls: dict[int, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.endpoint.endpoint

    def set_breaker(self, breaker: Breaker) -> None:
        """As the breaker says now; its times are milliseconds of the same clock."""
        self.breaker = breaker
        self.not_before = breaker.not_before() / 1000


def choose(places: Sequence[Place], tried: Set[str], draw: Draw, slow_s: float, strategy: Strategy) -> Place | Absent:
    """The place to call next by the strategy, or why there is none. slow_s: see RouterSettings.slow_after_s."""
    now, late = draw.now, draw.now - slow_s
    fit: Sequence[Place] | Absent = [
        one
        for one in places
        if one.in_use < one.limit
        and one.not_before <= now
        and one.rest_until <= now
        and one.waiting_since >= late
        and one.endpoint.up
        and not (tried and one.endpoint.endpoint in tried)
    ] or _second_best(places, tried, now)
    return fit if isinstance(fit, Absent) else fit[strategy(fit, draw)]


def _second_best(places: Sequence[Place], tried: Set[str], now: float) -> Sequence[Place] | Absent:
    fit = [one for one in places if one.endpoint.up and one.name not in tried]
    if not fit:
        return Absent.none
    able = sound(fit, now)
    free = [one for one in able if one.in_use < one.limit] or _borrowed(able)
    return [one for one in free if one.rest_until <= now] or free or Absent.busy


def _borrowed(places: Sequence[Place]) -> Sequence[Place]:
    """For a run that this process holds though none of these slots are its own: the seats changed, or what it tried
    before was all it had. It would wait for ever. The gate has counted it, so a slot is free somewhere: one each."""
    return [one for one in places if not one.in_use] if not any(one.limit for one in places) else ()


def sound(places: Sequence[Place], now: float) -> Sequence[Place]:
    """Those that their breakers let in; never nobody: then the one that is nearest to it. Not for an empty list."""
    return [one for one in places if one.not_before <= now] or [min(places, key=lambda one: one.not_before)]


def usable_slots(places: Sequence[Place], now: float) -> int | None:
    """Slots of this process at endpoints that can serve, and the requests that it still has at the others: they are in
    hand too, and must not stand for a slot elsewhere. None when no endpoint is up."""
    up = [one for one in places if one.endpoint.up]
    if not up:
        return None
    able = {one.name for one in sound(up, now)}
    return sum(_slots_at(one, now) if one.name in able else one.in_use for one in places)


def _slots_at(one: Place, now: float) -> int:
    """Of an endpoint that may be called; a half-open one is good for its probe beside what it has."""
    half_open = not one.breaker.closed and one.not_before <= now
    return min(one.limit, one.in_use + 1) if half_open else one.limit


def seen_as(one: Place, tried: Set[str], now: float, slow_s: float) -> Seen:
    """One endpoint with its figures and whether it could be called."""
    return Seen(
        endpoint=one.endpoint.endpoint,
        state=standing(one, tried, now, slow_s),
        in_use=one.in_use,
        slots=one.limit,
        weight=one.weight,
        ttft_ms=int(one.ttft(now) * 1000),
        peak_ms=int(one.peak(now) * 1000),
        price=one.price,
    )


def standing(one: Place, tried: Set[str], now: float, slow_s: float) -> str:
    """fit, or the first reason that speaks against it: see schemas.events.Seen."""
    if not one.endpoint.up:
        return "down"
    if one.name in tried:
        return "tried"
    if one.not_before > now:
        return "open"
    if one.in_use >= one.limit:
        return "full"
    if one.rest_until > now:
        return "resting"
    if one.waiting_since < now - slow_s:
        return "slow"
    return "fit" if one.breaker.closed else "half_open"
