"""Acceptances that are answered once they cannot be lost with the server's memory: `durability: strict`.

A server with WAITAOF (Valkey 7.2, Redis 7.2) says when the writes of a connection are on its disk. So the accept script
is sent on a connection of its own and WAITAOF after it. The connection is blocked until then (up to a second under
`appendfsync everysec`), so what arrives meanwhile goes out together in the next round, on another one. A server without
WAITAOF answers after the disk anyway if it runs with `appendfsync always`. With neither, nothing can be promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.client import Client, ServerError
from runtime.scripts import Acceptance, RedisScripts
from schemas.errors import Unavailable

WAITAOF, ALWAYS = "WAITAOF", "appendfsync always"
_ROUNDS = 16  # under way at most; each has a connection
_GATHER_S = 0.05  # between the beginnings of two rounds: 16 of them span most of the second that everysec takes

#: A connection that may block, and the wait for its server's disk in milliseconds.
Connect = Callable[[], Awaitable[Client]]


async def promise_of(redis: Any) -> str:
    """How this server (schemas.ports.Redis) can tell what is on its disk: WAITAOF, ALWAYS, or "" not at all."""
    if "aof_enabled:1" not in str(await redis.execute("INFO", "persistence")):
        return ""
    if (await redis.execute("COMMAND", "INFO", "WAITAOF"))[0]:
        return WAITAOF
    try:
        said = await redis.execute("CONFIG", "GET", "appendfsync")
    except ServerError:  # the login may not ask
        return ""
    return ALWAYS if "always" in str(said) else ""


@dataclass(slots=True)
class _Asked:
    """An acceptance and who waits for it."""

    new: Acceptance
    answer: asyncio.Future[tuple[bool, int]]


@dataclass(slots=True)
class Disk:
    """Strict acceptances of one process, over connections that are made when they are needed.

    wait_ms: how long one may wait for the disk. replicas: how many must have it on theirs too. at_once: the server
    answers after the disk anyway (ALWAYS), nothing is waited for."""

    connect: Connect
    retention_ms: int
    wait_ms: int
    replicas: int = 0
    at_once: bool = False
    _idle: list[Client] = field(default_factory=list)
    _rounds: set[asyncio.Task[None]] = field(default_factory=set)
    _waiting: list[_Asked] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        """As Scripts.accept, and it is on disk. Unavailable: it is not, or not known to be (it may come to be)."""
        asked = _Asked(new, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._schedule()
        return await asked.answer

    async def close(self) -> None:
        """Wait for no disk any more."""
        for task in self._rounds:
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._idle))

    def _schedule(self) -> None:
        """At once when no round is under way, else together with what comes within a moment."""
        if not self._waiting or self._timer is not None:
            return
        wait = _GATHER_S if self._rounds else 0.0
        self._timer = asyncio.get_running_loop().call_later(wait, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if len(self._rounds) >= _ROUNDS:
            return  # the next one that ends comes here again
        batch, self._waiting = self._waiting, []
        task = asyncio.create_task(self._round(batch), name="disk:round")
        self._rounds.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        self._schedule()

    async def _round(self, batch: list[_Asked]) -> None:
        """Accept all, wait once, answer all."""
        client: Client | None = None
        try:
            client = self._idle.pop() if self._idle else await self.connect()
            await self._write(client, batch)
        except Exception as error:
            _fail(batch, error)
        finally:
            _fail(batch, Unavailable("this process stops"))
            if client is not None:
                self._idle.append(client)

    async def _write(self, client: Client, batch: list[_Asked]) -> None:
        scripts, before = RedisScripts(client, self.retention_ms), client.client_id
        said = await asyncio.gather(*(scripts.accept(asked.new) for asked in batch), return_exceptions=True)
        disks, replicas = (1, 0) if self.at_once else await self._wait(client)
        if client.client_id != before:
            raise Unavailable("the connection was lost before the disk had answered")  # the new one waits for nothing
        late = disks < 1 or replicas < self.replicas
        for asked, one in zip(batch, said, strict=True):
            if isinstance(one, BaseException):
                _answer(asked, error=one)
            elif late:
                _answer(asked, error=Unavailable(f"not on disk within {self.wait_ms} ms"))
            else:
                _answer(asked, one)

    async def _wait(self, client: Client) -> Any:
        """[whether the server has what this connection wrote on its disk, how many replicas have it on theirs]."""
        return await client.execute("WAITAOF", 1, self.replicas, self.wait_ms)


def _answer(asked: _Asked, said: tuple[bool, int] = (False, 0), error: BaseException | None = None) -> None:
    if asked.answer.done():
        return
    if error is None:
        asked.answer.set_result(said)
    else:
        asked.answer.set_exception(error)


def _fail(batch: list[_Asked], error: Exception) -> None:
    """Whoever has no answer yet gets this one."""
    for asked in batch:
        _answer(asked, error=error)
