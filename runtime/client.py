"""One Redis or Valkey server, spoken to with as few system calls as can be.

Commands issued in one turn of the event loop leave in one write, replies are matched in order. A round trip costs far
more than the work on its message, so this is where the hot path's budget is kept; redis-py remains the parser of
addresses, hiredis the parser of replies.

- `Client` reconnects by itself with jittered backoff (50-500 ms). While the server is away `execute` raises
  Unavailable at once: callers decide whether to wait. A command in flight when the connection broke raises
  Unavailable too: it may or may not have been applied, which is why every script of ours can be run twice.
- Refusals that mean "not now" (OOM, MISCONF, READONLY, LOADING, NOREPLICAS, CLUSTERDOWN, BUSY) are Unavailable;
  any other server error is ServerError.
- Behind Sentinel it looks up the master before each connection, refuses a replica, and leaves a server that Sentinel
  has replaced. Any server that turns out to be a replica (READONLY) is left and looked up again.
- A blocked XREADGROUP needs a client of its own (`blocking=True`): nothing else may be written on that connection.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from base import metrics
from base.clock import Clock
from base.ids import Random
from runtime.address import Address
from runtime.sentinel import Sentinels
from runtime.wire import ServerError, Wire, connect
from schemas.errors import HeadraceError, Unavailable

__all__ = ["Address", "Client", "ServerError"]

_BACKOFF = (0.05, 0.5)  # seconds, jittered
_SILENCE = 5.0  # seconds without a reply to a waiting command before the connection is given up


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
        sentinels: Sentinels | None = None,
    ) -> None:
        """sentinels: of an address that has some, shared by the clients of a process; made here when not given."""
        self._address, self._clock, self._chance = address, clock, chance
        self._sentinels = sentinels or (Sentinels(address, clock) if address.guarded else None)
        self._name, self._silence, self._push = name, silence, push
        self._wire: Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._dropped = asyncio.Event()
        self._hooks: list[Callable[[], Any]] = []
        self._digests: dict[str, str] = {}
        self.client_id = 0
        self.place = address  # where it is connected, or was last
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
        self._dropped.clear()
        wire = Wire(self._on_lost, self._push)
        try:
            async with asyncio.timeout(self._silence):
                self.place = await self._sentinels.master() if self._sentinels else self._address
                await connect(self.place, wire)
                greeting = await self._greet(wire)
        except (OSError, TimeoutError, HeadraceError) as error:
            wire.abort()
            raise Unavailable(f"Redis at {self.place} does not answer: {error}") from None
        self._wire = wire
        self.client_id = int(greeting[b"id"])

    async def _greet(self, wire: Wire) -> Any:
        """Say who we are; the server's answer. Unavailable when Sentinel has sent us to a replica."""
        a = self._address
        hello = ["HELLO", "3", *(["AUTH", a.username or "default", a.password] if a.password else [])]
        greeting = await wire.send((*hello, "SETNAME", self._name))
        if a.db:
            await wire.send(("SELECT", a.db))
        if self._sentinels and "role:master" not in str(await wire.send(("INFO", "replication"))):
            raise Unavailable("it is a replica")
        return greeting

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
                await self._look()
                continue
            await self._clock.sleep(self._chance.uniform(*_BACKOFF))
            try:
                await self._open()
            except Unavailable:
                self._dropped.set()
                continue
            await asyncio.gather(*(hook() for hook in self._hooks), return_exceptions=True)

    async def _look(self) -> None:
        """Give a connection up that is silent, or whose server Sentinel has replaced."""
        if self._wire is None:
            return
        if self._wire.silent_for() > self._silence or await self._is_replaced():
            self.interrupt()

    async def _is_replaced(self) -> bool:
        try:
            return self._sentinels is not None and await self._sentinels.master() != self.place
        except Unavailable:
            return False  # without a Sentinel nobody can have been promoted
