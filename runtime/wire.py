"""One connection: commands leave in one write per turn of the loop, replies are matched in order."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from runtime.address import Address
from schemas.errors import HeadraceError, Unavailable

_NOT_NOW = ("OOM", "MISCONF", "READONLY", "LOADING", "NOREPLICAS", "CLUSTERDOWN", "BUSY ", "MASTERDOWN", "TRYAGAIN")
_ANOTHER = ("READONLY", "MASTERDOWN")  # a replica says so


class ServerError(HeadraceError):
    """The server refused a command for a reason that waiting does not mend."""


class Wire(asyncio.Protocol):
    """One connection: packs, writes once per turn, matches replies."""

    def __init__(
        self, lost: Callable[[], None] = lambda: None, push: Callable[[list[Any]], None] | None = None
    ) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._lost, self._push = lost, push
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.progress = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by isinstance

    def data_received(self, data: bytes) -> None:
        self.progress = self._loop.time()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                if self._push is not None:
                    self._push(list(reply))
                continue
            future = self._waiting.popleft()
            if future.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(self._refused(str(reply)))
            else:
                future.set_result(reply)

    def _refused(self, text: str) -> HeadraceError:
        """A replica answers here: whoever is the master now is found by connecting anew."""
        if text.startswith(_ANOTHER):
            self._loop.call_soon(self.abort)
        return translate(text)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for future in self._waiting:
            if not future.done():
                future.set_exception(Unavailable("the connection to Redis was lost"))
                future.exception()  # a caller that is gone need not be told
        self._waiting.clear()
        self._lost()

    def send(self, parts: tuple[Any, ...]) -> asyncio.Future[Any]:
        if self._transport is None:
            raise Unavailable("Redis is not connected")
        if not self._out:
            self._loop.call_soon(self._flush)
        if not self._waiting:
            self.progress = self._loop.time()
        self._out.append(hiredis.pack_command(parts))
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        return future

    def post(self, parts: tuple[Any, ...]) -> None:
        """A command whose answer is a push message: nothing is awaited in its place."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(parts))

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def silent_for(self) -> float:
        """Seconds since the last sign of life, 0 when nothing is awaited."""
        return self._loop.time() - self.progress if self._waiting else 0.0

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()


def translate(text: str) -> HeadraceError:
    """A server's error as one of ours."""
    if text.startswith(_NOT_NOW):
        return Unavailable(f"Redis refuses for now: {text}")
    if text.startswith("NOPERM"):
        return ServerError(
            f"the user of redis.url may do too little ({text}); `headrace topology acl` writes its rights"
        )
    return ServerError(text)


async def connect(address: Address, wire: Wire | None = None) -> Wire:
    """A connection to host and port, or to the socket. OSError."""
    loop, made = asyncio.get_running_loop(), wire or Wire()
    if address.path:
        await loop.create_unix_connection(lambda: made, address.path)
    else:
        tls = ssl.create_default_context() if address.tls else None
        await loop.create_connection(lambda: made, address.host, address.port, ssl=tls)
    return made
