"""One keep-alive connection of the load generator: sends prebuilt bytes, counts what comes back.

A raw protocol on purpose: about 20 us a request and 10 us a token, so that the generator isn't what is measured.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic_ns
from typing import cast

import httptools

from bench.sse import SseCounter
from bench.tally import Refused, Tally, code_of, verdict


@dataclass(frozen=True, slots=True)
class Plan:
    """What every connection sends, and what it must get."""

    host: str
    port: int
    #: Sent in turn.
    requests: Iterator[bytes]
    stream: bool
    #: Tokens a good answer carries; 0 means any number.
    expected: int = 0


class Connection(asyncio.Protocol):
    """`on_idle(self)` is called when it can send, after connecting and after each answer; `on_lost(self)` once."""

    def __init__(
        self,
        plan: Plan,
        tally: Tally,
        on_idle: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._plan, self._tally, self._on_idle, self._on_lost = plan, tally, on_idle, on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._counter = SseCounter()
        self._first = self._last = self._now = self._status = 0
        self._body = b""
        self._retry_ms = -1
        #: When the request under way was sent; 0 between requests.
        self.sent_ns = 0

    def send(self) -> None:
        """Send the next request; only when idle."""
        assert self._transport
        assert not self.sent_ns
        self._counter = SseCounter()
        self._first = self._last = self._status = 0
        self._body, self._retry_ms = b"", -1
        self._tally.sent += 1
        self.sent_ns = monotonic_ns()
        self._transport.write(next(self._plan.requests))

    def give_up(self, kind: str) -> None:
        """Count the request under way as failed and break the connection."""
        if self.sent_ns:
            self.sent_ns = 0
            self._tally.failed(kind, self._body)
        self.close()

    def close(self) -> None:
        """Break the connection, at once."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.sent_ns:
            self._end("" if self._complete_without_length() else "broken")
        self._transport = None
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        self._now = monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.give_up("protocol")

    # The parser's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after-ms":
            self._retry_ms = int(value)

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        if self._status != 200 or not self._plan.stream:
            self._body += piece
            return
        for stamp in self._counter.feed(piece):
            self._tally.token(stamp, self._now)
            if self._last:
                self._gap()
            else:
                self._first = self._now
            self._last = self._now

    def on_message_complete(self) -> None:
        if self._status == 100 or not self.sent_ns:
            return
        if not self._plan.stream:
            self._counter.feed(self._body + b"\n")
        kind = verdict(self._status, self._plan.stream, self._counter, self._plan.expected)
        self._end(kind)
        if self._transport and not self._transport.is_closing():
            if self._parser.should_keep_alive():
                self._on_idle(self)
            else:
                self._transport.close()

    def _gap(self) -> None:
        if self._tally.measuring:
            self._tally.gap.append(self._now - self._last)

    def _complete_without_length(self) -> bool:
        """A stream whose body ends with the connection is whole when its end mark came."""
        return self._plan.stream and not verdict(self._status, True, self._counter, self._plan.expected)

    def _end(self, kind: str) -> None:
        sent, self.sent_ns = self.sent_ns, 0
        if kind:
            if kind.isdigit():
                refused = Refused(self._status, code_of(self._body), self._retry_ms, monotonic_ns() - sent)
                self._tally.refused.append(refused)
            self._tally.failed(kind, self._counter.error or self._body)
            return
        self._tally.ended_well(self._now - sent)
        if self._first and self._tally.measuring:
            self._tally.first_token.append(self._first - sent)
