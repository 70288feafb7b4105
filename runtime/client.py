"""One Redis or Valkey server, spoken to with as few system calls as can be.

Commands issued in one turn of the event loop leave in one write, replies are matched in order. A round trip costs far
more than the work on its message, so this is where the hot path's budget is kept; redis-py remains the parser of
addresses, hiredis the parser of replies.

- `Client` reconnects by itself with jittered backoff (50-500 ms). While the server is away `execute` raises
  Unavailable at once: callers decide whether to wait. A command in flight when the connection broke raises
  Unavailable too: it may or may not have been applied, which is why every script of ours can be run twice.
- Refusals that mean "not now" (OOM, MISCONF, READONLY, LOADING, NOREPLICAS, CLUSTERDOWN, BUSY) are Unavailable;
  any other server error is ServerError.
- A blocked XREADGROUP needs a client of its own (`blocking=True`): nothing else may be written on that connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis
from redis.asyncio.connection import parse_url

from base import metrics
from base.clock import Clock
from base.ids import Random
from schemas.errors import HeadraceError, Unavailable

_NOT_NOW = ("OOM", "MISCONF", "READONLY", "LOADING", "NOREPLICAS", "CLUSTERDOWN", "BUSY ", "MASTERDOWN", "TRYAGAIN")
_BACKOFF = (0.05, 0.5)  # seconds, jittered
_SILENCE = 5.0  # seconds without a reply to a waiting command before the connection is given up


class ServerError(HeadraceError):
    """The server refused a command for a reason that waiting does not mend."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: TCP or unix socket, credentials, TLS."""

    host: str
    port: int
    path: str
    username: str
    password: str
    tls: bool
    db: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """From redis://, rediss:// or unix:// as redis-py reads them. ValueError when it is none of them."""
        found: dict[str, Any] = dict(parse_url(url))
        return cls(
            host=found.get("host", "127.0.0.1"),
            port=int(found.get("port", 6379)),
            path=found.get("path", ""),
            username=found.get("username") or "",
            password=found.get("password") or "",
            tls=url.startswith("rediss://"),
            db=int(found.get("db") or 0),
        )


class _Wire(asyncio.Protocol):
    """One connection: packs, writes once per turn, matches replies."""

    def __init__(self, lost: Callable[[], None], push: Callable[[list[Any]], None] | None) -> None:
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
                future.set_exception(_translate(str(reply)))
            else:
                future.set_result(reply)

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


def _translate(text: str) -> HeadraceError:
    """A server's error as one of ours."""
    if text.startswith(_NOT_NOW):
        return Unavailable(f"Redis refuses for now: {text}")
    if text.startswith("NOPERM"):
        return ServerError(
            f"the user of redis.url may do too little ({text}); `headrace topology acl` writes its rights"
        )
    return ServerError(text)


class Client:
    """The house's connection to one server. Implements schemas.ports.Redis."""

    def __init__(
        self,
        address: Address,
        clock: Clock,
        chance: Random,
        *,
        name: str = "headrace",
        silence: float = _SILENCE,
        push: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self._address, self._clock, self._chance = address, clock, chance
        self._name, self._silence, self._push = name, silence, push
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._dropped = asyncio.Event()
        self._hooks: list[Callable[[], Any]] = []
        self._digests: dict[str, str] = {}
        self.client_id = 0
        self.losses = 0  # connections lost so far

    async def connect(self) -> None:
        """Connect once (Unavailable when it fails) and stay connected until `close`."""
        await self._open()
        self._keeper = asyncio.create_task(self._keep(), name=f"redis:{self._name}")

    def on_connect(self, hook: Callable[[], Any]) -> None:
        """Run `hook` (async) after each later reconnection."""
        self._hooks.append(hook)

    @property
    def connected(self) -> bool:
        return self._wire is not None

    def send(self, *parts: str | bytes | int | float) -> asyncio.Future[Any]:
        """Queue a command; its future is the reply. Unavailable at once when there is no connection."""
        if self._wire is None:
            raise Unavailable("Redis is not connected")
        return self._wire.send(parts)

    def post(self, *parts: str | bytes | int | float) -> None:
        """A subscribe command: its answer comes as a push. Silently nothing without a connection."""
        if self._wire is not None:
            self._wire.post(parts)

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        """One command and its reply."""
        return await self.send(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """A Lua script by digest, loaded when the server does not know it."""
        digest = self._digests.get(text)
        if digest is None:
            digest = self._digests[text] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self.send("EVALSHA", digest, len(keys), *keys, *args)
        except ServerError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self.send("EVAL", text, len(keys), *keys, *args)

    async def close(self) -> None:
        """Write what is queued, then hang up."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def interrupt(self) -> None:
        """Drop the connection now; the keeper makes a new one."""
        if self._wire is not None:
            self._wire.abort()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        a = self._address
        self._dropped.clear()
        wire = _Wire(self._on_lost, self._push)
        try:
            async with asyncio.timeout(self._silence):
                if a.path:
                    await loop.create_unix_connection(lambda: wire, a.path)
                else:
                    tls = ssl.create_default_context() if a.tls else None
                    await loop.create_connection(lambda: wire, a.host, a.port, ssl=tls)
                hello = ["HELLO", "3", *(["AUTH", a.username or "default", a.password] if a.password else [])]
                greeting = await wire.send((*hello, "SETNAME", self._name))
                if a.db:
                    await wire.send(("SELECT", a.db))
        except (OSError, TimeoutError, HeadraceError) as error:
            wire.abort()
            raise Unavailable(f"Redis at {a.path or f'{a.host}:{a.port}'} does not answer: {error}") from None
        self._wire = wire
        self.client_id = int(greeting[b"id"])

    def _on_lost(self) -> None:
        self._wire = None
        self.losses += 1
        metrics.inc("headrace_redis_losses_total", connection=self._name.rpartition(":")[2])
        self._dropped.set()

    async def _keep(self) -> None:
        """Watch for silence, reconnect after a loss, tell the hooks."""
        while True:
            try:
                await asyncio.wait_for(self._dropped.wait(), timeout=1.0)
            except TimeoutError:
                if self._wire is not None and self._wire.silent_for() > self._silence:
                    self._wire.abort()
                continue
            await self._clock.sleep(self._chance.uniform(*_BACKOFF))
            try:
                await self._open()
            except Unavailable:
                self._dropped.set()
                continue
            await asyncio.gather(*(hook() for hook in self._hooks), return_exceptions=True)
