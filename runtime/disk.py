"""Acceptances that are answered once they cannot be lost with the server's memory: `durability: strict`.

A server with WAITAOF (Redis 7.2, Valkey 7.2) says when the writes of a connection are on its disk. So the accept script
is sent on a connection of its own and WAITAOF after it. The connection is blocked until then (up to a second under
`appendfsync everysec`), so what arrives meanwhile goes out together in the next round, on another one. A server with
`appendfsync always` answers after the disk anyway. With neither, nothing can be promised; nor with a WAITAOF that
answers too soon, which is looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.client import Client, ServerError
from runtime.scripts import RedisScripts
from schemas.errors import Code, HeadraceError, Refusal, Unavailable

WAITAOF, ALWAYS = "WAITAOF", "appendfsync always"
_ROUNDS = 16  # under way at most; each has a connection
_GATHER_S = 0.05  # between the beginnings of two rounds: 16 of them span most of the second that everysec takes

_PROBE = "{durable}:probe"
_LOOKS = 2  # after a first sync
_LOOK_MS = 5_000
_TOO_SOON_S = 0.1
_STOPS = "this process stops"

#: A connection that may block, and the wait for its server's disk in milliseconds.
Connect = Callable[[], Awaitable[Client]]
#: One acceptance by these scripts.
Call = Callable[[RedisScripts], Awaitable[Any]]


async def promise_of(redis: Any, connect: Connect) -> str:
    """How this server (schemas.ports.Redis) can tell what is on its disk: ALWAYS, WAITAOF, or "" not at all.

    connect: a connection of its own, for the look at whether WAITAOF may be believed."""
    if "aof_enabled:1" not in str(await redis.execute("INFO", "persistence")):
        return ""
    if await _syncs_always(redis):
        return ALWAYS
    client = await connect()
    try:
        return WAITAOF if await _waits(client) else ""
    except ServerError:  # there is none, or the login may not ask
        return ""
    finally:
        await client.close()


async def _syncs_always(redis: Any) -> bool:
    try:
        return "always" in str(await redis.execute("CONFIG", "GET", "appendfsync"))
    except ServerError:  # the login may not ask
        return False


async def _waits(client: Client) -> bool:
    """Whether WAITAOF waits. Under everysec a write just after a sync must wait for most of a second; several releases
    (Redis 7.4, Valkey up to 9.1 at least) say at once that it is on disk, long before they sync."""
    loop = asyncio.get_running_loop()
    for number in range(1 + _LOOKS):
        await client.execute("SET", _PROBE, number, "EX", 60)
        began = loop.time()
        disks, _ = await client.execute("WAITAOF", 1, 0, _LOOK_MS)
        if number and (disks < 1 or loop.time() - began < _TOO_SOON_S):
            return False
    return True


class Strict(Protocol):
    """Whoever accepts runs so that they are on disk when it answers."""

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        """As Scripts.accept. Unavailable: it is not on disk, or not known to be (it may come to be)."""
        ...

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        """As Scripts.accept_once. Unavailable as above."""
        ...


_NO_DISK = (
    "The server under this gateway cannot say when a request is on its disk, so `strict` cannot be promised. Leave "
    "x-headrace-durability out, or ask the operator for `appendfsync always`."
)


def no_promise() -> Refusal:
    """What a strict request is told where nothing can be promised."""
    return Refusal.of(Code.invalid_request, _NO_DISK, param="x-headrace-durability")


class Later:
    """Strict acceptances of a process that looks for the server's promise when the first one comes: the look takes a
    second, and few logins may ask. Refusal when there is none. After a lost connection it looks again: another server
    may be in charge."""

    def __init__(
        self, find: Callable[[], Awaitable[Disk | RedisScripts | None]], losses: Callable[[], int] = lambda: 0
    ) -> None:
        """losses: how many connections to the server were lost so far."""
        self._find, self._losses, self._looking = find, losses, asyncio.Lock()
        self._found: Disk | RedisScripts | None = None
        self._seen = 0  # losses when it was found

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        """See Strict.accept."""
        return await (await self.look()).accept(new)

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        """See Strict.accept_once."""
        return await (await self.look()).accept_once(new, repeat)

    async def look(self) -> Disk | RedisScripts:
        """Whoever accepts them. What was found stays while the connection does; nothing found is looked for again."""
        async with self._looking:
            losses = self._losses()
            if self._found is None or losses != self._seen:
                await self._take(await self._found_now())
                self._seen = losses
        if self._found is None:
            raise no_promise()
        return self._found

    async def _found_now(self) -> Disk | RedisScripts | None:
        try:
            return await self._find()
        except HeadraceError as error:
            if self._found is None:
                raise
            raise Unavailable(str(error)) from None  # it was promised before: a server that cannot is no client's fault

    async def _take(self, found: Disk | RedisScripts | None) -> None:
        if isinstance(self._found, Disk):
            if isinstance(found, Disk):
                return  # the same promise: whoever waits goes on waiting
            await self._found.close()
        self._found = found

    async def close(self) -> None:
        """Wait for no disk any more."""
        if isinstance(self._found, Disk):
            await self._found.close()


@dataclass(slots=True)
class _Asked:
    """An acceptance and who waits for it."""

    call: Call
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class Disk:
    """Strict acceptances of one process by WAITAOF, over connections that are made when they are needed.

    wait_ms: how long one may wait for the disk. replicas: how many must have it on theirs too."""

    connect: Connect
    retention_ms: int
    wait_ms: int
    replicas: int = 0
    _idle: list[Client] = field(default_factory=list)
    _rounds: set[asyncio.Task[None] | None] = field(default_factory=set)
    _waiting: list[_Asked] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _closed: bool = False

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        """See Strict.accept."""
        fits, live = await self._ask(lambda scripts: scripts.accept(new))
        return fits, live

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        """See Strict.accept_once."""
        answer: Accepted = await self._ask(lambda scripts: scripts.accept_once(new, repeat))
        return answer

    async def _ask(self, call: Call) -> Any:
        if self._closed:
            raise Unavailable(_STOPS)
        asked = _Asked(call, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._schedule()
        return await asked.answer

    async def close(self) -> None:
        """Wait for no disk any more, and begin nothing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            _answer(asked, Unavailable(_STOPS))
        tasks = [task for task in self._rounds if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
        answers: Sequence[Any] = [Unavailable(_STOPS)] * len(batch)
        try:
            client = self._idle.pop() if self._idle else await self.connect()
            answers = await self._write(client, batch)
        except Exception as error:
            answers = [error] * len(batch)
        finally:
            self._rounds.discard(asyncio.current_task())
            if client is not None:
                self._idle.append(client)
            for asked, one in zip(batch, answers, strict=True):
                _answer(asked, one)

    async def _write(self, client: Client, batch: Sequence[_Asked]) -> Sequence[Any]:
        scripts, before = RedisScripts(client, self.retention_ms), client.client_id
        said = await asyncio.gather(*(asked.call(scripts) for asked in batch), return_exceptions=True)
        try:
            disks, replicas = await client.execute("WAITAOF", 1, self.replicas, self.wait_ms)
        except ServerError as error:  # another server by now, or other settings: nobody knows what is on its disk
            raise Unavailable(f"the server does not say any more what is on its disk: {error}") from None
        if client.client_id != before:
            raise Unavailable("the connection was lost before the disk had answered")  # the new one waits for nothing
        if disks < 1 or replicas < self.replicas:
            raise Unavailable(f"not on disk within {self.wait_ms} ms")
        return said


def _answer(asked: _Asked, said: Any) -> None:
    if asked.answer.done():
        return
    if isinstance(said, BaseException):
        asked.answer.set_exception(said)
    else:
        asked.answer.set_result(said)
