"""One request and its answer on a connection of ours: uvicorn's cycle, and what ASGI has no words for.

The hot routes find it in their scope as the extension EXTENSION; under any other server they do without and speak plain
ASGI. It knows whether the body is here already (no wait, no timer), writes a whole answer in one go, and calls whoever
watches when the client leaves (no task that waits for it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ingress.errors import Header
from ingress.headers import CLOSE

EXTENSION = "headrace.cycle"


def cycle_of(scope: Mapping[str, Any]) -> Cycle | None:
    """The cycle behind a scope; None under another server."""
    found: Cycle | None = scope.get("extensions", {}).get(EXTENSION)
    return found


class Cycle(RequestResponseCycle):
    """task: of its handler. left: called once when the client goes before its answer is complete."""

    transport: asyncio.Transport
    task: asyncio.Task[None]
    left: Callable[[], None] | None = None

    def body_at_hand(self, limit: int) -> bytes | None:
        """The whole body if all of it is here and within the limit; it is handed out once."""
        if self.more_body or self.disconnected or len(self.body) > limit:
            return None
        body, self.body = bytes(self.body), bytearray()
        return body

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` when the client goes, or soon if it has gone. The body must have been read."""
        self.flow.resume_reading()  # a paused connection does not notice
        self.left = left
        if self.disconnected:
            asyncio.get_running_loop().call_soon(self.gone)

    def gone(self) -> None:
        """The connection was lost."""
        left, self.left = self.left, None
        if left is not None:
            left()

    async def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """A whole answer, in one write. Headers are clean and complete, content-length too. Waits while the client's
        buffer is full; nothing for a client that has left."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.keep_alive = self.keep_alive and CLOSE not in headers
        lines = [b"%b: %b\r\n" % header for header in (*self.default_headers, *headers)]
        if not self.keep_alive and CLOSE not in headers:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
