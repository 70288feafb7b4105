"""Connections of one process: kept ones are used again, the newest first, and dropped before the usual server drops
them. Public and private endpoints never share one, since a Place says which it is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, defaultdict
from dataclasses import dataclass

from base.clock import Clock
from providers.connection import Connection
from providers.places import Connector, Place
from providers.rounds import Rounds

#: Idle connections are dropped before the usual server (5 s) drops them: a request must not meet a closing one.
KEEP_ALIVE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Calls of this process at a time: in all, and to one place (0 = no limit). Who comes beyond waits."""

    total: int = 4096
    per_host: int = 0


class Pool:
    """Lends connections; each that was lent is given back once."""

    def __init__(self, clock: Clock, limits: PoolLimits, tls: ssl.SSLContext | None) -> None:
        self._clock, self._limits, self._rounds = clock, limits, Rounds()
        self._connector = Connector(clock, tls)
        self._kept: defaultdict[Place, list[tuple[float, Connection]]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._lent: Counter[Place] = Counter()
        self._calls = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._all_ended = asyncio.Event()

    def lend_kept(self, place: Place) -> Connection | None:
        """A connection that was kept from an earlier call and is idle, where there is one for this call."""
        kept = None if self._is_full(place) else self._newest(place)
        if kept is not None:
            self._count(place, 1)
        return kept

    async def lend(self, place: Place, limit_s: float) -> tuple[Connection, bool]:
        """The same, waited for or else a new one; and whether it was kept. ConnectFailed; TimeoutError when there is
        none within the limit."""
        async with asyncio.timeout(limit_s):
            while self._is_full(place):
                await self._turn()
            self._count(place, 1)
            try:
                kept = self._newest(place)
                return (kept, True) if kept else (await self._new(place), False)
            except BaseException:
                self._count(place, -1)
                raise

    def give_back(self, place: Place, connection: Connection) -> None:
        """Keep it when it can carry another call."""
        self._count(place, -1)
        if connection.free():
            self._kept[place].append((self._clock.monotonic() + KEEP_ALIVE_S, connection))
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep)

    async def close(self) -> None:
        """Cut everything."""
        self._rounds.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._all_ended.clear()
        for connection in tuple(self._open):
            connection.cut()
        if self._open:
            await self._all_ended.wait()

    async def _new(self, place: Place) -> Connection:
        connection = Connection(self._ended, self._rounds)
        try:
            self._open.add(connection)
            await self._connector.connect(place, connection)
        except BaseException:
            connection.cut()
            self._ended(connection)
            raise
        return connection

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._all_ended.set()

    def _newest(self, place: Place) -> Connection | None:
        """A kept connection; those that have ended meanwhile are forgotten."""
        kept, now = self._kept.get(place), self._clock.monotonic()
        while kept:
            until, connection = kept.pop()
            if connection.idle and now < until:
                return connection
            connection.cut()
        return None

    def _is_full(self, place: Place) -> bool:
        total, one = self._limits.total, self._limits.per_host
        return bool((total and self._calls >= total) or (one and self._lent[place] >= one))

    async def _turn(self) -> None:
        """Until a call has ended."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(turn)
        try:
            await turn
        finally:
            self._waiting.discard(turn)

    def _count(self, place: Place, change: int) -> None:
        """A call begins or ends; those who wait look whether it is their turn."""
        self._calls += change
        self._lent[place] += change
        if not self._lent[place]:
            del self._lent[place]
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def _sweep(self) -> None:
        """Drop what was kept long enough; come again while anything is kept."""
        self._sweeper, now = None, self._clock.monotonic()
        for place, kept in tuple(self._kept.items()):
            for until, connection in kept:
                if until <= now:
                    connection.cut()
            left = [one for one in kept if one[0] > now and one[1].idle]
            if left:
                self._kept[place] = left
            else:
                del self._kept[place]
        if self._kept:
            self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S / 2, self._sweep)
