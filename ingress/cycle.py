"""One request and its answer on a connection of ours: uvicorn's cycle, and what ASGI has no words for.

The hot routes find it in their scope as the extension EXTENSION; under any other server they do without and speak plain
ASGI. It knows whether the body is here already (no wait, no timer), writes a whole answer in one go and the head of a
stream with its first piece, and calls whoever watches when the client leaves (no task that waits for it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ingress.errors import Header
from ingress.headers import CLOSE

EXTENSION = "headrace.cycle"
TRANSPORT = "headrace.transport"
_CHUNKED: Header = (b"transfer-encoding", b"chunked")


def chunk(payload: bytes) -> bytes:
    """A piece of a stream as HTTP has it; not for an empty one, which would end it."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Cycle(RequestResponseCycle):
    """task: of its handler. left: called once when the client goes before its answer is complete. Headers that it is
    given are clean and complete, but for transfer-encoding."""

    transport: asyncio.Transport
    task: asyncio.Task[None]
    left: Callable[[], None] | None = None

    def __init__(self, connection: HttpToolsProtocol, scope: Any, keep_alive: bool) -> None:
        super().__init__(
            scope,
            connection.transport,
            connection.flow,
            connection.logger,
            connection.access_logger,
            False,
            connection.server_state.default_headers,
            asyncio.Event(),
            connection.expect_100_continue,
            keep_alive,
            connection.on_response_complete,
        )
        scope["extensions"][EXTENSION] = self
        self._head, self._tasks = b"", connection.tasks

    def over(self, task: asyncio.Task[None]) -> None:
        """Its handler is done. What holds itself would wait for the collector."""
        self._tasks.discard(task)
        self.scope["extensions"] = {}
        self.left = None

    def body_at_hand(self, limit: int) -> bytes | None:
        """The whole body if all of it is here and within the limit; it is handed out once."""
        if self.more_body or self.disconnected or len(self.body) > limit:
            return None
        body, self.body = bytes(self.body), bytearray()
        return body

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` when the client goes, or soon if it has gone. The body must have been read."""
        if self.flow.read_paused:
            self.flow.resume_reading()  # a paused connection does not notice
        self.left = left
        if self.disconnected:
            asyncio.get_running_loop().call_soon(self.gone)

    def gone(self) -> None:
        """The connection was lost."""
        left, self.left = self.left, None
        if left is not None:
            left()

    def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """A whole answer, in one write; headers with its content-length. Nothing for a client that has left, here and
        below."""
        if not self.disconnected:
            self.transport.write(self._begin(status, headers) + body)
            self._end()

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        """A stream begins; its head leaves with the first piece."""
        self._head = self._begin(status, [*headers, _CHUNKED])

    def piece(self, payload: bytes, last: bool) -> None:
        """Bytes of the stream, in one write with its head or its end."""
        if self.disconnected:
            return
        head, self._head = self._head, b""
        self.transport.write(b"".join((head, chunk(payload) if payload else b"", b"0\r\n\r\n" if last else b"")))
        if last:
            self._end()

    def _begin(self, status: int, headers: Sequence[Header]) -> bytes:
        self.response_started = True
        self.waiting_for_100_continue = False
        closes = CLOSE in headers
        if closes:
            self.keep_alive = False
        added = () if self.keep_alive or closes else (CLOSE,)
        lines = map(b": ".join, (*self.default_headers, *headers, *added))
        return STATUS_LINE[status] + b"\r\n".join(lines) + b"\r\n\r\n"

    def _end(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
