"""One HTTP answer on raw ASGI: it begins once, ends once, and never ends cleanly after a failure.

The hot routes speak through this object, so that whatever goes wrong finds out from `begun` whether there is still a
status to choose or only one error event left to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from zlib import crc32

from starlette.types import Send

from base.clock import Clock
from ingress.cycle import Cycle, chunk
from ingress.errors import Header, error_body, error_event, http_status, retry_headers
from ingress.headers import CLOSE, JSON, REPLAYED, STREAM_HEAD, frame_headers, own_headers
from schemas.errors import Code, Failure
from schemas.frames import Frame

#: Bytes that the client has not taken yet, up to which more may be written without waiting; far below uvicorn's bound.
_ROOM = 8 * 1024
_KEEP_ALIVE = b": keep-alive\n\n"
#: Answered before the body was read to its end: the connection cannot be used again.
_UNREAD = frozenset({Code.request_timeout})


class Exchange:
    """The answer to one request. replayed: its run was there before it. status and code: what was answered, for the
    count; sends: grows with each send; events: the client was sent so many. last_words: the event that ends a stream
    which had begun, with a failure."""

    __slots__ = (
        "_clock",
        "_send",
        "_sent",
        "_started",
        "accepted",
        "begun",
        "code",
        "cycle",
        "events",
        "last_words",
        "replayed",
        "run",
        "sending",
        "sends",
        "status",
        "wire",
    )

    def __init__(
        self, send: Send, run: str, clock: Clock, wire: asyncio.Transport | None = None, cycle: Cycle | None = None
    ) -> None:
        self.run = run
        self.wire, self.cycle = wire, cycle
        self.accepted = self.begun = self.sending = self.replayed = False
        self.sends = self.events = 0
        self.last_words: Callable[[Failure], Awaitable[bytes]] = _plain
        self.status = 0
        self.code = ""
        self._send, self._clock = send, clock
        self._started = self._sent = clock.monotonic()

    def quiet(self) -> float:
        """Seconds since something was sent."""
        return self._clock.monotonic() - self._sent

    def elapsed(self) -> float:
        """Seconds since the request's head was read."""
        return self._clock.monotonic() - self._started

    async def answer(self, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
        """A whole answer of JSON."""
        head = self._head(status, [JSON, (b"content-length", b"%d" % len(body)), *headers])
        if self.cycle is None:
            await self._push({"type": "http.response.start", "status": status, "headers": head})
            await self._push({"type": "http.response.body", "body": body})
            return
        if self.cycle.flow.write_paused:
            await self._drain(self.cycle)
        self.cycle.whole(status, head, body)
        self.sends += 1

    async def begin(self, headers: Mapping[str, str]) -> None:
        """The head of a stream: from here on the status is 200."""
        head = self._head(200, [*STREAM_HEAD, *frame_headers(headers)])
        if self.cycle is None:
            await self._push({"type": "http.response.start", "status": 200, "headers": head})
        else:
            self.cycle.begin(200, head)

    async def piece(self, payload: bytes, last: bool) -> None:
        """Bytes of the stream; with the last ones the body ends. Waits while the client's buffer is full."""
        if self.cycle is None:
            await self._push({"type": "http.response.body", "body": payload, "more_body": not last})
            return
        if self.cycle.flow.write_paused:
            await self._drain(self.cycle)
        self.cycle.piece(payload, last)
        self.sends += 1
        self._sent = self._clock.monotonic()

    def ready(self) -> bool:
        """See schemas.ports.Direct: in the middle of a stream, and the client has taken what was sent before."""
        wire = self.wire
        if wire is None or not self.begun or self.sending or wire.is_closing():
            return False
        return wire.get_write_buffer_size() <= _ROOM

    def put(self, frame: Frame) -> None:
        """See schemas.ports.Direct: the chunk that uvicorn would write for a piece of a stream, without a task."""
        assert self.wire is not None
        self.wire.write(chunk(frame.payload))
        self.events = frame.sequence
        self.sends += 1
        self._sent = self._clock.monotonic()

    async def comment(self) -> None:
        """A sign of life that no client takes for an event."""
        await self.piece(_KEEP_ALIVE, last=False)

    async def fail(self, failure: Failure, headers: Mapping[str, str] | None = None) -> None:
        """The error, as a status while there is a choice, else as the last event, without [DONE]."""
        self.code = failure.code
        if self.begun:
            await self.piece(await self.last_words(failure), last=True)
            return
        extra = [*frame_headers(headers or {}), *retry_headers(failure, spread_of(self.run))]
        if failure.code in _UNREAD:
            extra.append(CLOSE)
        await self.answer(http_status(failure), error_body(failure), extra)

    def _head(self, status: int, headers: list[Header]) -> list[Header]:
        """The answer begins: its headers, with those that every answer has."""
        self.begun, self.status = True, status
        headers += own_headers(self.run, self.accepted, self._clock.monotonic() - self._started)
        if self.replayed:
            headers.append(REPLAYED)
        return headers

    async def _drain(self, cycle: Cycle) -> None:
        """Wait while the client's buffer is full; `sending` and `sends` let the stall watch see for how long."""
        self.sending = True
        await cycle.flow.drain()
        self.sending = False

    async def _push(self, message: dict[str, Any]) -> None:
        """The same, and send, on plain ASGI."""
        self.sending = True
        await self._send(message)
        self.sending = False
        self.sends += 1
        self._sent = self._clock.monotonic()


async def _plain(failure: Failure) -> bytes:
    return error_event(failure)


def spread_of(run: str) -> float:
    """A number from 0 to 1 that differs from request to request."""
    return crc32(run.encode()) / 2**32
