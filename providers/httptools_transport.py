"""The HTTP transport to engines: pooled, TLS verified, no redirect, no proxy, no decompression; httptools on the loop.

    HttptoolsTransport.open   one call -> Response once its head is here
    Response.read, pour       pieces as they arrive, watched by the connection's timer
    Response.whole            all of it at once

places.py knows where a URL leads, pool.py keeps connections, connection.py is one of them, http_answer.py reads.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy

from base.clock import Clock
from providers.connection import Connection
from providers.errors import (
    BadResponse,
    Broken,
    ConnectFailed,
    FirstByteTimeout,
    IdleTimeout,
    TotalTimeout,
    UpstreamFault,
    too_long,
)
from providers.http_answer import Answer
from providers.places import Place, Target, target_of
from providers.pool import Pool, PoolLimits
from providers.ports import Every, Sink, Timeouts

#: Kept connections that may turn out to be dead before a call gives up.
_STALE = 5
#: Seconds within which a dead connection shows; later the engine has worked on the request, which is an attempt.
_STALE_S = 1.0
_OWN = "accept: */*\r\naccept-encoding: identity\r\nuser-agent: headrace\r\n"  # no call has these itself


class HttptoolsTransport:
    """Opens calls to engines. `tls` replaces the system's trust (tests, own CA)."""

    def __init__(self, clock: Clock, limits: PoolLimits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._clock = clock
        self._pool = Pool(clock, limits or PoolLimits(), tls)

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        *,
        private: bool = False,
        method: str = "POST",
    ) -> Response:
        """See providers.ports.Transport."""
        started = self._clock.monotonic()
        target = target_of(url, private)
        head = _head(method, target, headers, len(body))
        # Some engines close a kept connection without saying so (llama.cpp after each stream), just as the next request
        # goes out. A kept connection that ends before any byte of an answer is such a one: try another.
        for _ in range(_STALE):
            connection, kept = self._pool.lend_kept(target.place), True
            if connection is None:
                connection, kept = await self._lend(target.place, timeouts, started)
            begun = self._clock.monotonic()
            response = Response(self._pool, target.place, connection, timeouts, self._clock, started)
            try:
                await response.begin(head, body)
                return response
            except BaseException as error:
                response.close()
                stale = kept and isinstance(error, Broken) and not response.touched
                if not stale or self._clock.monotonic() - begun > _STALE_S:
                    raise
        raise Broken("the engine closed every connection that was kept")

    async def close(self) -> None:
        """See providers.ports.Transport."""
        await self._pool.close()

    async def _lend(self, place: Place, timeouts: Timeouts, started: float) -> tuple[Connection, bool]:
        """A connection within its limit, or the whole call's where that is shorter."""
        left = started + timeouts.total_s - self._clock.monotonic()
        try:
            return await self._pool.lend(place, min(timeouts.connect_s, left))
        except TimeoutError:
            if left < timeouts.connect_s:
                raise _overdue(timeouts) from None
            raise ConnectFailed("no connection in time") from None


class Response:
    """One answer. `_watch` looks when the present wait becomes too long and cuts the connection with the fault that
    `read` then raises."""

    def __init__(
        self, pool: Pool, place: Place, connection: Connection, timeouts: Timeouts, clock: Clock, started: float
    ) -> None:
        self._pool, self._place, self._connection = pool, place, connection
        self._timeouts, self._clock = timeouts, clock
        self._end = started + timeouts.total_s
        self._first = started + timeouts.connect_s + timeouts.first_byte_s
        self._begun = self._closed = False
        self._waiting_since: float | None = None
        self._answer: Answer

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """See providers.ports.UpstreamResponse."""
        return self._answer.headers

    @property
    def touched(self) -> bool:
        """Whether anything of an answer was read."""
        return self._answer.touched

    async def begin(self, head: bytes, body: bytes) -> None:
        """Send the request and wait for the answer's head. BadResponse for a coding that was not asked for."""
        answer = self._answer = self._connection.send(head, body)
        self._watch()
        while not answer.has_head:
            await self._arrival()
        if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise BadResponse("the engine compressed its answer although it was asked not to")

    async def read(self) -> bytes:
        """See providers.ports.UpstreamResponse."""
        answer = self._answer
        while not answer.pieces:
            if answer.complete:
                self.close()
                return b""
            await self._arrival()
        self._note_first()
        return answer.take()

    async def whole(self, most: int) -> bytes:
        """See providers.ports.UpstreamResponse."""
        answer, size = self._answer, 0
        taken: list[bytes] = []
        while True:
            if answer.pieces:
                self._note_first()
                size += answer.size
                taken.append(answer.take())
                if size > most:
                    raise too_long(most)
            if answer.complete:
                self.close()
                return b"".join(taken)
            await self._arrival()

    async def pour(self, sink: Sink, every: Every | None = None) -> bool:
        """See providers.ports.UpstreamResponse."""
        self._connection.every = every
        answer, more = self._answer, True
        raised: list[Exception] = []

        def hear() -> bool:
            nonlocal more
            self._note_first()
            self._waiting_since = self._clock.monotonic()
            try:
                more = sink(answer.take())
            except Exception as error:  # in a callback of the loop: whoever pours is to have it
                raised.append(error)
                more = False
            return more

        while True:
            if answer.pieces and more:
                hear()
            if raised:
                raise raised.pop()  # kept here, it and this frame would hold each other
            if not more:
                return False
            if answer.complete:
                self.close()
                return True
            await self._arrival(hear)

    async def drain(self, seconds: float) -> None:
        """See providers.ports.UpstreamResponse."""
        if not self._answer.complete:
            with suppress(UpstreamFault, TimeoutError):
                async with asyncio.timeout(seconds):
                    while await self.read():
                        pass
        self.close()

    def close(self) -> None:
        """See providers.ports.UpstreamResponse."""
        if not self._closed:
            self._closed = True
            self._pool.give_back(self._place, self._connection)

    def _note_first(self) -> None:
        """The first byte is here: from now on the idle limit counts, if there is still something to wait for."""
        if not self._begun:
            self._begun = True
            if not self._answer.complete:
                self._watch()

    async def _arrival(self, hear: Callable[[], bool] | None = None) -> None:
        """Until more is here, complete or not. UpstreamFault when nothing more will come."""
        if self._closed:
            raise Broken("the call was closed")
        if self._connection.fault is not None:
            self.close()
            raise copy(self._connection.fault)  # the other one stays: raised, it would hold all that waits here
        self._waiting_since, self._connection.hear = self._clock.monotonic(), hear
        try:
            await self._connection.arrival()
        finally:
            self._waiting_since = self._connection.hear = None
            self._connection.leave()

    def _watch(self) -> None:
        """Look again at the present limit, or strike when it is reached."""
        now = self._clock.monotonic()
        since = now if self._waiting_since is None else self._waiting_since
        due = since + self._timeouts.idle_s if self._begun else self._first
        left = min(due, self._end) - now
        if left > 0:
            self._connection.watch(left, self._watch)
            return
        self._connection.cut(_overdue(self._timeouts) if self._end < due else self._silence())

    def _silence(self) -> UpstreamFault:
        """What the present wait is when it was too long."""
        if self._begun:
            return IdleTimeout(f"the engine was silent for {self._timeouts.idle_s:g} s inside its answer")
        return FirstByteTimeout(f"the engine sent nothing for {self._timeouts.first_byte_s:g} s")


def _overdue(timeouts: Timeouts) -> TotalTimeout:
    return TotalTimeout(f"the call took longer than {timeouts.total_s:g} s")


def _head(method: str, target: Target, headers: Mapping[str, str], length: int) -> bytes:
    """The head of the request. ConnectFailed for a header that cannot be sent (its text could be a credential)."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        raise ConnectFailed("a header of the call has characters that cannot be sent")
    sized = f"content-length: {length}\r\n" if length or method == "POST" else ""
    return f"{method}{target.line}{_OWN}{lines}{sized}\r\n".encode()
