"""How many runs of each pool this process can take, and how the gate learns of it.

A router announces its slots in every partition, every second and when they change; the gate never puts more into the
lanes than was announced. Within the process the engines of all partitions share the places of a pool, and read only
lanes of pools that have one: a router with room for one pool never holds runs of another.

With several partitions a pool's places cannot be dealt out exactly beforehand, since nobody knows where the next run
will be: each partition is promised up to twice its even share, and a run that then finds no slot waits in this process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from base import logs
from base.clock import Clock
from runtime.names import place_of
from runtime.scripts import Scripts, Seat
from schemas.errors import HeadraceError

log = logs.room("runtime")

HOLDS_MS = 3000  # an announcement ends by itself after this
_EVERY_S = 1.0
_MOST = 256  # waiting runs that one announcement lets in; then it is repeated at once

#: Pool -> runs that this process can have in hand at once.
Capacities = Callable[[], Awaitable[Mapping[str, int]]]


class Places:
    """Runs in hand and capacity, by pool. on_change: called when a pool has room again that had none, and each time
    that the capacity is told, once a second: then reads end that still wait for a pool which is full by now. others:
    routers that live beside this one, as of the last announcement."""

    def __init__(self) -> None:
        self.capacity: Mapping[str, int] = {}
        self.in_hand: Counter[str] = Counter()
        self.others = 0
        self.on_change: Callable[[], None] = lambda: None

    def room(self, stream: str) -> int:
        """How many entries of a cleared stream may be read now."""
        pool = place_of(stream)[0]
        return self.capacity.get(pool, 0) - self.in_hand[pool]

    def able(self, streams: Sequence[str]) -> tuple[Sequence[str], int]:
        """The streams of which entries may be read now, and how many of each.

        The lanes of a pool share its room, since a read takes as many of each: it brings no more than there is room
        for, but one of each lane when there is one place."""
        rooms = {stream: room for stream in streams if (room := self.room(stream)) > 0}
        lanes = Counter(place_of(stream)[0] for stream in rooms)
        each = [max(1, room // lanes[place_of(stream)[0]]) for stream, room in rooms.items()]
        return list(rooms), min(each, default=0)

    def take(self, stream: str) -> None:
        """An entry of the stream was read."""
        self.in_hand[place_of(stream)[0]] += 1

    def give(self, stream: str) -> None:
        """An entry of the stream is done with."""
        pool = place_of(stream)[0]
        self.in_hand[pool] -= 1
        if self.in_hand[pool] == self.capacity.get(pool, 0) - 1:
            self.on_change()

    def set(self, capacity: Mapping[str, int]) -> None:
        """What this process can take from now on."""
        self.capacity = capacity
        self.on_change()


class Announcer:
    """Tells the gates of all partitions. seated: hears this router's place among the routers, and how many they are."""

    def __init__(
        self,
        router: str,
        prefixes: Sequence[str],
        places: Places,
        capacities: Capacities,
        seated: Callable[[int, int], None],
        scripts: Scripts,
        clock: Clock,
    ) -> None:
        self._router, self._prefixes, self._places = router, prefixes, places
        self._capacities, self._seated = capacities, seated
        self._scripts, self._clock = scripts, clock
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Announce once, then again and again. Unavailable when the server is away.

        The place among the routers is asked for before any slot is announced: one that took itself for the only one
        would let in as many runs as all of them together can take."""
        self._sit([await self._tell(p, {}) for p in self._prefixes])
        await self.announce()
        self._task = asyncio.create_task(self._loop(), name="router:announce")

    async def stop(self) -> None:
        """Take the announcement back, so that the gate sends nothing more here."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        pools = dict.fromkeys(self._places.capacity, 0)
        try:
            for p in self._prefixes:
                await self._scripts.announce(p, self._router, 0, pools, 0)
        except HeadraceError as error:
            log.info("an announcement ends by itself", reason=str(error))

    def poke(self) -> None:
        """Something changed: announce now."""
        self._due.set()

    async def announce(self) -> None:
        """One round over all partitions; what a new place among the routers changes is told at once."""
        for _ in range(2):
            capacity = await self._capacities()
            self._places.set(capacity)
            slots = {pool: share(count, len(self._prefixes)) for pool, count in capacity.items()}
            self._sit([await self._tell(p, slots) for p in self._prefixes])
            if await self._capacities() == capacity:
                return

    def _sit(self, seats: Sequence[Seat]) -> None:
        """All partitions have the same routers; the first says who sits where."""
        self._places.others = max(0, seats[0].routers - 1)
        self._seated(seats[0].place, seats[0].routers)

    async def _tell(self, p: str, slots: Mapping[str, int]) -> Seat:
        while True:
            seat = await self._scripts.announce(p, self._router, HOLDS_MS, slots, _MOST)
            if seat.admitted < _MOST:
                return seat

    async def _loop(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._due.wait()
            self._due.clear()
            try:
                await self.announce()
            except HeadraceError as error:
                log.info("slots could not be announced", reason=str(error))
                await self._clock.sleep(_EVERY_S / 4)
            except Exception:
                log.exception("announcing stumbled and goes on")
                await self._clock.sleep(_EVERY_S)


def share(slots: int, partitions: int) -> int:
    """What one of several partitions is promised of a pool's slots in this process."""
    return slots if partitions == 1 else min(slots, -(-2 * slots // partitions))
