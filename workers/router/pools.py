"""The endpoints' slots as this process uses them, and who waits for one.

Several routers share an endpoint's slots by their seats (rules.share_of): each uses its part and announces it, so the
gate never lets in more runs than there are slots.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager

from base import metrics
from base.clock import Clock
from schemas.records import EndpointRecord
from workers.router.rules import ERRANDS, Absent, Seat, choose, share_of
from workers.router.strategies import Strategy

#: Seconds after which a waiter looks again by itself: an endpoint may have come up meanwhile.
_LOOK_AGAIN_S = 1.0


class Pools:
    """Who uses what. All methods but `wait` return at once; everything happens on one loop."""

    def __init__(self, strategy_of: Callable[[str], Strategy], clock: Clock) -> None:
        self._strategy_of, self._clock = strategy_of, clock
        self.seat = Seat(0, 1)
        self._in_use: defaultdict[str, int] = defaultdict(int)
        self._resting: dict[str, float] = {}
        self._turns: defaultdict[str, int] = defaultdict(int)
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    def pick(self, pool: str, endpoints: Sequence[EndpointRecord], tried: Set[str]) -> EndpointRecord | Absent:
        """The endpoint to call next, by the pool's strategy. Nothing is taken yet."""
        turn = self._turns[pool]
        found = choose(endpoints, self._in_use, tried, self._tired(), self._strategy_of(pool), turn)
        if isinstance(found, EndpointRecord):
            self._turns[pool] = turn + 1
        return found

    def capacity(self, endpoints: Sequence[EndpointRecord]) -> int:
        """Runs of a pool that this router can have in hand: its part of the slots that are up; without any endpoint
        room for errands, so that runs are told so at once."""
        up = [endpoint for endpoint in endpoints if endpoint.up]
        return sum(share_of(endpoint.slots, self.seat) for endpoint in up) if up else ERRANDS

    @contextmanager
    def using(self, endpoint: EndpointRecord) -> Iterator[None]:
        """A slot of the endpoint for the length of the block; then the first waiter of its pool is woken."""
        self._count(endpoint.endpoint, 1)
        try:
            yield
        finally:
            self._count(endpoint.endpoint, -1)
            self._wake(endpoint.pool)

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

    def rest(self, endpoint: str, milliseconds: int) -> None:
        """The endpoint asked to be left alone; others are preferred until then."""
        self._resting[endpoint] = self._clock.monotonic() + milliseconds / 1000

    def in_use(self, endpoint: str) -> int:
        """Requests that this process has at the endpoint now."""
        return self._in_use[endpoint]

    def used(self) -> dict[str, int]:
        """Endpoint -> requests that this process has there now, without those that have none."""
        return {name: number for name, number in self._in_use.items() if number}

    def _tired(self) -> Set[str]:
        if not self._resting:
            return frozenset()
        now = self._clock.monotonic()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        return self._resting.keys()

    def _count(self, endpoint: str, change: int) -> None:
        self._in_use[endpoint] += change
        metrics.gauge("headrace_endpoint_inflight", self._in_use[endpoint], endpoint=endpoint)

    def _wake(self, pool: str) -> None:
        waiting = self._waiting[pool]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
