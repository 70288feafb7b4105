"""The one HTTP transport to engines: pooled, TLS verified, no redirect, no proxy, no decompression. aiohttp inside.

    HttpTransport.open   one call -> HttpResponse once its head is here
    HttpResponse.read    pieces as they arrive; one timer watches them, re-armed only when it fires
    _Sockets             makes every socket and judges the very address it will connect to

Public and private endpoints have pools of their own, so that an endpoint marked private never lends its connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import aiohttp
from aiohttp.client_exceptions import ClientConnectorError

from base.clock import Clock
from providers.addresses import refuse_address
from providers.errors import (
    BadResponse,
    Broken,
    ConnectFailed,
    FirstByteTimeout,
    IdleTimeout,
    TotalTimeout,
    UpstreamFault,
)
from providers.ports import Timeouts

#: Idle connections are dropped before the usual server (5 s) drops them: a request must not meet a closing one.
KEEP_ALIVE_S = 3.0
#: Bytes read ahead of the reader before the socket is paused.
READ_AHEAD = 64 * 1024
#: Kept connections that may turn out to be dead before a call gives up.
_STALE = 5
#: Seconds within which a dead connection shows; later the engine has worked on the request, which is an attempt.
_STALE_S = 1.0
#: Filled by the socket factory: whether the present call got a connection of its own.
_made: ContextVar[list[bool]] = ContextVar("made")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Connections of this process: in all, and to one host (0 = no limit)."""

    total: int = 4096
    per_host: int = 0


class _Sockets:
    """Makes the sockets of one pool; an address that may not be called is an OSError before anything is sent."""

    def __init__(self, private: bool) -> None:
        self._private = private

    def __call__(self, found: tuple[int, int, int, str, tuple[str | int, ...]]) -> socket.socket:
        family, kind, proto, _, place = found
        reason = refuse_address(str(place[0]), self._private)
        if reason:
            raise OSError(reason)
        if (marks := _made.get(None)) is not None:
            marks.append(True)
        made = socket.socket(family, kind, proto)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return made


class HttpTransport:
    """Opens calls to engines. Make it inside a running loop; `tls` replaces the system's trust (tests, own CA)."""

    def __init__(self, clock: Clock, limits: PoolLimits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._clock = clock
        self._limits = limits or PoolLimits()
        self._tls = tls
        self._sessions = {private: self._session(private) for private in (False, True)}

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        *,
        private: bool = False,
        method: str = "POST",
    ) -> HttpResponse:
        """See providers.ports.Transport."""
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(min(timeouts.connect_s + timeouts.first_byte_s, timeouts.total_s)):
                answer = await self._send(self._sessions[private], method, url, headers, body, timeouts)
        except (aiohttp.ClientError, OSError) as error:
            raise (_late(timeouts) if type(error) is TimeoutError else _translate(error)) from None
        response = HttpResponse(answer, timeouts, self._clock, started)
        if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            response.close()
            raise BadResponse("the engine compressed its answer although it was asked not to")
        return response

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
    ) -> aiohttp.ClientResponse:
        """Some engines close a kept connection without saying so (llama.cpp after each stream), just as the next
        request goes out. A kept connection that ends before any byte of an answer is such a one: try another."""
        sent = {"accept-encoding": "identity", "user-agent": "headrace", **headers}
        limit = _connect_only(timeouts.connect_s)
        for _ in range(_STALE):
            made: list[bool] = []
            _made.set(made)
            begun = self._clock.monotonic()
            try:
                return await session.request(
                    method, url, data=body or None, headers=sent, allow_redirects=False, timeout=limit
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if made or isinstance(error, ClientConnectorError) or self._clock.monotonic() - begun > _STALE_S:
                    raise
        raise aiohttp.ServerDisconnectedError

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, private: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._limits.total,
            limit_per_host=self._limits.per_host,
            keepalive_timeout=KEEP_ALIVE_S,
            ssl=self._tls if self._tls is not None else True,
            socket_factory=_Sockets(private),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_AHEAD,
        )


class HttpResponse:
    """One answer. The timer looks at `_due` and closes the connection with the fault that `read` then raises."""

    def __init__(self, answer: aiohttp.ClientResponse, timeouts: Timeouts, clock: Clock, started: float) -> None:
        self._answer, self._timeouts, self._clock = answer, timeouts, clock
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._end = started + timeouts.total_s
        self._first = started + timeouts.connect_s + timeouts.first_byte_s
        self._begun = False
        self._waiting_since: float | None = None
        self._fault: UpstreamFault | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """See providers.ports.UpstreamResponse."""
        self._waiting_since = self._clock.monotonic()
        if self._timer is None:
            self._watch()
        try:
            piece = await self._answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            piece = self._unread()
            if not piece:
                self.close()
                raise (self._fault or _translate(error)) from None
        finally:
            self._waiting_since = None
        if not self._begun:
            self._begun = True
            self._rearm()
        if not piece:
            self.close()
        return piece

    async def read_within(self, seconds: float) -> bytes | None:
        """See providers.ports.UpstreamResponse."""
        try:
            async with asyncio.timeout(seconds):
                return await self.read()
        except TimeoutError:
            return None

    def _unread(self) -> bytes:
        """What had arrived before the connection broke, which aiohttp would drop by raising first; then b""."""
        content = self._answer.content
        broke = content.exception()
        if broke is None or self._fault is not None:
            return b""
        content.set_exception(None)  # type: ignore[arg-type]
        try:
            return content.read_nowait()
        finally:
            content.set_exception(broke)

    async def drain(self, seconds: float) -> None:
        """See providers.ports.UpstreamResponse."""
        if not self._answer.content.at_eof():
            with suppress(UpstreamFault, TimeoutError):
                async with asyncio.timeout(seconds):
                    while await self.read():
                        pass
        self.close()

    def close(self) -> None:
        """See providers.ports.UpstreamResponse."""
        self._disarm()
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._answer.close()

    def _disarm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _rearm(self) -> None:
        """The first byte is here: from now on the idle limit counts."""
        self._disarm()
        self._watch()

    def _limit(self) -> tuple[float, UpstreamFault]:
        """When the present wait becomes too long, and what it is then."""
        if not self._begun:
            due, fault = self._first, _late(self._timeouts)
        else:
            since = self._clock.monotonic() if self._waiting_since is None else self._waiting_since
            due = since + self._timeouts.idle_s
            fault = IdleTimeout(f"the engine was silent for {self._timeouts.idle_s:g} s inside its answer")
        if self._end < due:
            return self._end, TotalTimeout(f"the call took longer than {self._timeouts.total_s:g} s")
        return due, fault

    def _watch(self) -> None:
        """Arm the timer for the present limit, or strike when it is reached."""
        due, fault = self._limit()
        left = due - self._clock.monotonic()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._watch)
            return
        self._timer, self._fault = None, fault
        self._answer.content.set_exception(aiohttp.ClientPayloadError("timed out"))
        self._answer.close()


@lru_cache(maxsize=64)
def _connect_only(seconds: float) -> aiohttp.ClientTimeout:
    """aiohttp keeps the connect limit; the others are ours."""
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _late(timeouts: Timeouts) -> UpstreamFault:
    """The fault of an answer whose first byte did not come."""
    if timeouts.total_s < timeouts.connect_s + timeouts.first_byte_s:
        return TotalTimeout(f"the call took longer than {timeouts.total_s:g} s")
    return FirstByteTimeout(f"the engine sent nothing for {timeouts.first_byte_s:g} s")


def _translate(error: Exception) -> UpstreamFault:
    """aiohttp's exceptions as ours. Texts of aiohttp are passed on only where they can hold no header or body."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return ConnectFailed("no connection in time")
        case ClientConnectorError():
            return ConnectFailed(f"no connection: {error.os_error}")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return ConnectFailed("the endpoint's URL cannot be called")
        case aiohttp.ServerDisconnectedError():
            return Broken("the engine closed the connection without an answer")
        case aiohttp.ClientPayloadError():
            return Broken("the engine's answer ended before it was complete")
        case aiohttp.ClientResponseError():
            return BadResponse(f"the engine does not speak HTTP/1.1 properly: {type(error).__name__}")
    return Broken(f"the connection to the engine broke: {type(error).__name__}")
