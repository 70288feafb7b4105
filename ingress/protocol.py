"""uvicorn's HTTP/1.1 connection with the limits it lacks: heads that are too large or too slow, endless uploads.

A head over its limits is 431, bytes that are no HTTP are 400, both in OpenAI's shape; a head that does not arrive in
time closes the socket. What a client still uploads after its answer is thrown away for the same time, then the socket
closes. A request sent before the one ahead of it was answered is left to another connection: this one closes after the
first answer, as HTTP allows, because uvicorn would not notice that such a client has left. The transport is handed to
the application as an ASGI extension, so that a stalled reader can be cut, and so is the cycle (ingress/cycle.py).
Connections and answers are uvicorn's; what it does per head and per pause is written out here, without what this door
has no use for.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, parse_url
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ingress.cycle import TRANSPORT, Cycle
from ingress.errors import error_body
from ingress.settings import ServerSettings
from schemas.errors import Code, Failure

_OFFER = b"\r\nupgrade:"
_UNSENT = 128 * 1024  # bytes the kernel may hold that it could not send yet
_PROBES = 3  # without an answer, and a silent peer is gone
_BROKEN = error_body(Failure(code=Code.invalid_request.value, message="This is not an HTTP/1.1 request."))
_HEAD = error_body(Failure(code=Code.request_too_large.value, message="The request's headers are too large."))


class HeadTooLarge(Exception):
    """The parser is to stop."""


class DoorProtocol(HttpToolsProtocol):
    """One connection. Subclasses carry the settings. longest_head: bytes on the wire: what is weighed, the marks
    between, and the rest of the first line."""

    settings: ServerSettings
    longest_head: int
    cycle: Cycle | None  # type: ignore[assignment]  # uvicorn says None there too

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        self._head_bytes = self._untold = 0
        self._told = False  # whether a part of a body was in what came last
        self._in_head = True
        self._between = False  # nothing has come since the last message was complete
        self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tune(transport.get_extra_info("socket"), self.settings.stall_limit)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)
        cycle, self.cycle = self.cycle, None
        if cycle is not None and cycle.disconnected:
            cycle.gone()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._between, self._idle_since = False, None
        try:
            self.parser.feed_data(without_offer(data, self.longest_head) if self._in_head else data)
        except HttpParserUpgrade:
            pass  # a CONNECT; it is answered as any request
        except HttpParserError:
            self._refuse(400, _BROKEN)
        if not self._between:
            self._unfinished(len(data))

    def _unfinished(self, more: int) -> None:
        """A message is under way. The parser keeps a line without an end to itself, in a head and behind a body, so
        what is no body is weighed on the wire too. more: bytes that have just come."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()
        self._untold, self._told = 0 if self._told else self._untold + more, False
        if self._untold > self.longest_head:
            self._refuse(431, _HEAD)

    def on_message_begin(self) -> None:
        self.url, self.headers = b"", []
        self._head_bytes = self._untold = 0
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._head_bytes += len(url)
        if self._head_bytes > self.settings.header_limit:
            self._too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self.settings.header_limit or len(self.headers) > self.settings.header_count:
            self._too_large()

    def on_headers_complete(self) -> None:
        if self._head_timer is not None:
            self._disarm()
        self._in_head = False
        if self.cycle is not None and not self.cycle.response_complete:
            self._deaf = True
            self.cycle.keep_alive = False
        if not self._deaf and not self.transport.is_closing():
            self._serve(self.parser.get_http_version())

    def _serve(self, version: str) -> None:
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        cycle = self.cycle = Cycle(self, self._scope(version), keep_alive)
        self.headers = []  # trailers are no headers of the request
        task = cycle.task = self.loop.create_task(cycle.run_asgi(self.app))
        self.tasks.add(task)
        task.add_done_callback(cycle.over)

    def _scope(self, version: str) -> Any:
        """The request's head as ASGI has it."""
        url = parse_url(self.url)
        path = url.path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
            "extensions": {TRANSPORT: self.transport},
        }

    def on_body(self, body: bytes) -> None:
        self._told = True
        cycle = self._reading()
        if cycle is not None:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._in_head = self._between = True
        cycle = self._reading()
        if cycle is not None:
            cycle.more_body = False
            cycle.message_event.set()

    def _reading(self) -> Cycle | None:
        """Whose body comes in; None when nobody takes it any more."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or self._deaf or self.transport.is_closing():
            return None
        return cycle

    def on_response_complete(self) -> None:
        """uvicorn's hook: the connection may be used again, or idles."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            if self.flow.read_paused:
                self.flow.resume_reading()
            self._idle_since = self.loop.time()
            if self._idle_timer is None:
                self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._idle)

    def _idle(self) -> None:
        """One timer for all pauses of a connection: it looks how long the present one has lasted."""
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left, self._idle)

    def _too_large(self) -> None:
        self._refuse(431, _HEAD)
        raise HeadTooLarge  # in a callback: the parser stops, and nobody waits for what is left of the head

    def _refuse(self, status: int, body: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()  # an answer that has begun is cut

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self.settings.header_timeout, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


def without_offer(data: bytes, most: int) -> bytes:
    """The bytes of a head without an offer to change the protocol: the parser would drop the body of a request that
    makes one, and some clients offer h2c with every request. most: bytes in which a head ends."""
    at = data[:most].lower().find(_OFFER)
    if at < 0 or 0 <= data.find(b"\r\n\r\n", 0, most) < at:
        return data
    return data[:at] + b"\r\nx-upgrade:" + data[at + len(_OFFER) :]


def tune(sock: socket.socket | None, stall_limit: float) -> None:
    """No delay for small writes. Where the kernel can: it keeps little that is unsent (a slow reader is felt early and
    costs little), and drops a peer that acknowledges nothing for the stall limit: neither what was sent to it (this
    frees what is left of an answer after its handler is done) nor, while there is nothing to send, a probe. So a client
    whose machine or network vanished without a word is one that left, also while it waits for its first byte."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        every = max(1, round(stall_limit / (_PROBES + 1)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_limit * 1000))


def protocol_for(settings: ServerSettings) -> type[DoorProtocol]:
    """The connection class with these limits."""
    longest = settings.header_limit + 4 * settings.header_count + 100
    return type("ConfiguredDoorProtocol", (DoorProtocol,), {"settings": settings, "longest_head": longest})
