"""The endpoints' slots as this process uses them, who waits for one, and what it has measured there.

Several routers share an endpoint's slots by their seats (rules.share_of): each uses its part and announces it, so the
gate never lets in more runs than there are slots.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence, Set
from math import inf
from types import TracebackType

from base import metrics
from base.clock import Clock
from base.ewma import Latency, Sample, joined
from base.ids import Random
from policy.breaker import NEW, Breaker
from schemas.events import Choice
from schemas.records import EndpointRecord
from workers.router.choice import RECORDED, Absent, Place, choose, seen_as, usable_slots
from workers.router.rules import ERRANDS, Seat, share_of
from workers.router.strategies import STRATEGIES
from workers.router.strategies.candidate import Draw

#: Seconds after which a waiter looks again by itself: an endpoint may have come up meanwhile.
_LOOK_AGAIN_S = 1.0
#: The largest float below 1: a chance is in [0, 1).
_BELOW_ONE = 1.0 - 2.0**-53


class Pools:
    """Who uses what. All methods but `wait` return at once; everything happens on one loop.

    seat: may be replaced at any time. strategy_of: pool -> name of its strategy."""

    def __init__(
        self,
        strategy_of: Callable[[str], str],
        price_of: Callable[[EndpointRecord], int],
        slow_after_s: float,
        clock: Clock,
        chance: Random,
    ) -> None:
        self._strategy_of, self._price_of, self._slow_s = strategy_of, price_of, slow_after_s
        self._clock, self._chance = clock, chance
        self.seat = Seat()
        self._places: dict[str, Place] = {}
        self._pools: dict[str, tuple[Sequence[EndpointRecord], Seat, list[Place]]] = {}
        self._left: dict[str, Sequence[Place]] = {}  # pool -> endpoints that left it and have requests of ours
        self._breakers: Mapping[str, Breaker] = {}
        self._latencies: Mapping[str, Latency] = {}
        self._samples: defaultdict[str, list[float]] = defaultdict(list)
        self._turns: defaultdict[str, int] = defaultdict(int)
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    # --- choosing

    def pick(self, pool: str, endpoints: Sequence[EndpointRecord], tried: Set[str]) -> Place | Absent:
        """The place to call next, by the pool's strategy. Nothing is taken yet."""
        turn = self._turns[pool]
        draw = Draw(turn, min(self._chance.uniform(0.0, 1.0), _BELOW_ONE), self._clock.monotonic())
        strategy = STRATEGIES[self._strategy_of(pool)]
        found = choose(self.places(pool, endpoints), tried, draw, self._slow_s, strategy)
        if isinstance(found, Place):
            self._turns[pool] = turn + 1
        return found

    def explain(
        self,
        pool: str,
        endpoints: Sequence[EndpointRecord],
        tried: Set[str],
        chosen: Place | None = None,
        most: int = RECORDED,
    ) -> Choice:
        """What a choice is made from now; of a larger pool the chosen one and the first others, `most` in all."""
        now, places = self._clock.monotonic(), self.places(pool, endpoints)
        if chosen is not None and len(places) > most:
            places = [chosen, *(one for one in places if one is not chosen)]
        seen = tuple([seen_as(one, tried, now, self._slow_s) for one in places[:most]])
        return Choice(pool=pool, strategy=self._strategy_of(pool), of=len(places), seen=seen)

    def capacity(self, pool: str, endpoints: Sequence[EndpointRecord]) -> int:
        """Runs of a pool that this router can have in hand: its part of the slots of endpoints that are up and not left
        out, and what still runs at others, also at those that left the pool. Without any endpoint there is room for
        errands beside them, so that runs are told so at once."""
        places = self.places(pool, endpoints)
        usable = usable_slots(places, self._clock.monotonic())
        if usable is None:
            usable = ERRANDS + sum(place.in_use for place in places)
        return usable + sum(place.in_use for place in self._left[pool])

    def places(self, pool: str, endpoints: Sequence[EndpointRecord]) -> list[Place]:
        """The endpoints with what is known of them here; made anew only when the catalog or the seat has changed."""
        known = self._pools.get(pool)
        if known is not None and known[0] is endpoints and known[1] == self.seat:
            return known[2]
        places = [self._place(endpoint) for endpoint in endpoints]
        self._forget(pool, {place.name for place in places})
        self._pools[pool] = (endpoints, self.seat, places)
        return places

    def _place(self, endpoint: EndpointRecord) -> Place:
        name = endpoint.endpoint
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = Place(endpoint=endpoint, limit=0)
            place.set_breaker(self._breakers.get(name, NEW))
            _learn(place, self._latencies.get(name, Latency()))
        place.endpoint, place.weight = endpoint, endpoint.weight or 1
        place.limit = share_of(endpoint.slots, self.seat.turned(name))
        place.price = self._price_of(endpoint)
        return place

    def _forget(self, pool: str, kept: Set[str]) -> None:
        """Drop endpoints that left the pool, once they have no request of ours any more."""
        gone = [place for name, place in self._places.items() if place.endpoint.pool == pool and name not in kept]
        self._left[pool] = [place for place in gone if place.in_use]
        for place in gone:
            if not place.in_use:
                del self._places[place.name]

    # --- using

    def using(self, place: Place) -> Use:
        """A slot of the endpoint for the length of a `with`; then the first waiter of its pool is woken."""
        return Use(self, place, self._clock)

    def queue(self, pool: str) -> int:
        """How many wait for a slot of the pool."""
        return len(self._waiting[pool])

    async def wait(self, pool: str, seconds: float, again: bool = False) -> None:
        """Until a slot of the pool was freed, at most `seconds`, at most one second: then look again.

        again: the caller has waited before and found nothing; it goes to the front."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting[pool]
        queue.insert(0 if again else len(queue), turn)
        try:
            await asyncio.wait({turn}, timeout=min(seconds, _LOOK_AGAIN_S))
        except asyncio.CancelledError:
            if turn.done():
                self._wake(pool)
            raise
        finally:
            if not turn.done():
                self._waiting[pool].remove(turn)

    # --- what is learnt

    def rest(self, place: Place, milliseconds: int) -> None:
        """The endpoint asked to be left alone; others are preferred until then."""
        place.rest_until = self._clock.monotonic() + milliseconds / 1000

    def measured(self, place: Place, seconds: float) -> None:
        """A call took so long to its first byte."""
        sample = Sample(seconds, seconds)
        _learn(place, Latency(place.ttft_s, place.peak_s, place.seen_at).after(sample, self._clock.monotonic()))
        self._samples[place.name].append(seconds)

    def used(self) -> dict[str, int]:
        """Endpoint -> requests that this process has there now, without those that have none."""
        return {name: place.in_use for name, place in self._places.items() if place.in_use}

    def handed_in(self) -> dict[str, Sample]:
        """What this process has measured since it was asked last."""
        samples = {name: joined(found) for name, found in self._samples.items()}
        self._samples.clear()
        return samples

    def heard(self, breakers: Mapping[str, Breaker], latencies: Mapping[str, Latency]) -> None:
        """What all routers know together, now."""
        self._breakers, self._latencies = breakers, latencies
        for name, place in self._places.items():
            place.set_breaker(breakers.get(name, NEW))
            _learn(place, latencies.get(name, Latency()))

    def all(self) -> Sequence[Place]:
        """Every endpoint that this process has met."""
        return tuple(self._places.values())

    def count(self, place: Place, change: int) -> None:
        """A slot of it is taken (1) or free again (-1)."""
        place.in_use += change
        metrics.gauge("headrace_endpoint_inflight", place.in_use, endpoint=place.name)
        if change < 0:
            self._wake(place.endpoint.pool)

    def _wake(self, pool: str) -> None:
        waiting = self._waiting[pool]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class Use:
    """One call's slot, for the length of a `with`. began: monotonic seconds. opens: what the endpoint's breaker said
    then."""

    __slots__ = ("_clock", "_pools", "answered_at", "began", "opens", "place")

    def __init__(self, pools: Pools, place: Place, clock: Clock) -> None:
        self._pools, self._clock, self.place = pools, clock, place
        self.began, self.opens = clock.monotonic(), place.breaker.opens
        self.answered_at = 0.0

    def __enter__(self) -> Use:
        place = self.place
        place.calls[id(self)] = self.began
        place.waiting_since = min(place.waiting_since, self.began)
        self._pools.count(place, 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self.close()
        self._pools.count(self.place, -1)

    def answered(self) -> None:
        """The first byte of the answer is here."""
        if not self.answered_at:
            self.answered_at = self._clock.monotonic()
            self._pools.measured(self.place, self.answered_at - self.began)
            self.close()

    def close(self) -> None:
        """It waits for no first byte any more."""
        calls = self.place.calls
        if calls.pop(id(self), None) is not None:
            self.place.waiting_since = next(iter(calls.values()), inf)


def _learn(place: Place, latency: Latency) -> None:
    place.ttft_s, place.peak_s, place.seen_at = latency.ttft_s, latency.peak_s, latency.at
