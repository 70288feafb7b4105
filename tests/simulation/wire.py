"""How a simulated process reaches a server: requests and replies take time, in order, and may be lost in between.

A call is sent, arrives, is carried out by the server in one step, and its reply travels back. A process that dies or
stops after sending does not stop the server; one that is cut off hears Unavailable and does not know what was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from runtime.groups import Row
from runtime.together import Pulled
from schemas.errors import Unavailable
from tests.simulation.chance import SimRandom
from tests.simulation.loop import Home, VirtualLoop
from tests.simulation.server import Postgres, Redis, at_once, later

T = TypeVar("T")

_TRAVEL = (0.0001, 0.002)  # seconds one way
_ROUTINE = frozenset({"tenure", "idle"})  # not worth a line when they find nothing
_APART = 1e-6  # what arrives on one connection keeps its order

What = Literal["crash", "pause", "lose_reply"]


@dataclass(slots=True)
class Trap:
    """What happens at the nth next call of that name: before it is sent, or once it was carried out."""

    call: str
    nth: int
    what: What
    after: bool


class Wire:
    """All connections of one process. strike: called with what a trap does; tell: notes each call for the trace.

    over: the play is over and everything is being put away."""

    over = False

    def __init__(
        self,
        home: Home,
        context: Context,
        loop: VirtualLoop,
        redis: Redis,
        postgres: Postgres,
        chance: SimRandom,
        strike: Callable[[What], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self.home, self.context, self.redis, self.postgres = home, context, redis, postgres
        self.losses = 0
        self.traps: list[Trap] = []
        self._loop, self._chance, self._strike, self._tell = loop, chance, strike, tell
        self._sent = self._heard = self._pushed = 0.0
        self._open: dict[asyncio.Future[Any], asyncio.Task[Any] | None] = {}
        self._missed: list[Callable[[], None]] = []

    # --- calls ----------------------------------------------------------------------------------------------------

    async def call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a twin on the Redis server. Unavailable when it is away or the reply was lost."""
        return await self._send(part, name, lambda: self.redis.call(part, name, args, kwargs))

    async def record(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the record or the archive."""
        twin = getattr(self.postgres, part)
        return await self._send(part, name, lambda: at_once(getattr(twin, name)(*args, **kwargs)))

    async def _send(self, part: str, name: str, work: Callable[[], Any]) -> Any:
        if self.over:
            raise asyncio.CancelledError
        store = self.postgres if part in ("record", "archive") else self.redis
        trap = self._trap(name)
        if trap is not None and not trap.after:
            await self._struck(trap.what)
        if not store.up:
            await asyncio.sleep(self._chance.uniform(*_TRAVEL))
            raise Unavailable("the server is away")
        reply = self._loop.create_future()
        self._open[reply] = None
        self._sent = max(self._loop.time() + self._chance.uniform(*_TRAVEL), self._sent + _APART)
        self._loop.call_at(self._sent, self._arrive, reply, part, name, work, trap, context=store.context)
        return await reply

    def _arrive(
        self, reply: asyncio.Future[Any], part: str, name: str, work: Callable[[], Any], trap: Trap | None
    ) -> None:
        """On the server."""
        store = self.postgres if part in ("record", "archive") else self.redis
        result: Any = None
        error: Exception | None = None
        if not store.up:
            self._answer(reply, None, Unavailable("the connection was lost"))
            return
        try:
            result = work()
        except Exception as raised:
            error = raised
        if error is not None or name not in _ROUTINE or (name == "idle" and result):
            self._tell(self.home.name, f"{part}.{name} {brief(result, error)}")
        if trap is not None and trap.after:
            self._strike(trap.what)
            if trap.what == "lose_reply":
                result, error = None, Unavailable("the reply was lost")
        self._answer(reply, result, error)

    def _answer(self, reply: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._open.pop(reply, None)
        self._heard = max(self._loop.time() + self._chance.uniform(*_TRAVEL), self._heard + _APART)
        self._loop.call_at(self._heard, later, self._loop, reply, result, error, context=self.context)

    async def read(self, begin: Callable[[], Coroutine[Any, Any, T]], *groups: str) -> T:
        """A read for these groups that waits on the server's side, whatever becomes of the reader meanwhile."""
        if self.over:
            raise asyncio.CancelledError
        trap = self._trap("read")
        if trap is not None and not trap.after:
            await self._struck(trap.what)
        if not self.redis.up:
            await asyncio.sleep(self._chance.uniform(*_TRAVEL))
            raise Unavailable("the server is away")
        reply = self._loop.create_future()
        task = self._loop.create_task(begin(), context=self.redis.context)
        self._open[reply] = task
        task.add_done_callback(lambda done: self._delivered(done, reply, trap), context=self.redis.context)
        try:
            found: T = await reply
            return found
        finally:
            task.cancel()

    def _delivered(self, done: asyncio.Task[Any], reply: asyncio.Future[Any], trap: Trap | None) -> None:
        if done.cancelled():
            self._open.pop(reply, None)
            return
        error = done.exception()
        found = None if error else done.result()
        rows = rows_of(found)
        if rows:
            self._tell(self.home.name, f"read {[row.entry for row in rows]}")
        if trap is not None and trap.after and rows:
            self._strike(trap.what if trap.what != "lose_reply" else "crash")
        self._answer(reply, found, error if isinstance(error, Exception) else None)

    # --- pushes ---------------------------------------------------------------------------------------------------

    def subscribe(self, channel: str, listener: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """Pushes travel on a connection of their own."""
        self._missed.append(missed)
        self.redis.subscribe(channel, lambda message: self._push(listener, message))

    def _push(self, listener: Callable[[bytes], None], message: bytes) -> None:
        if self.home.dead:
            return
        self._pushed = max(self._loop.time() + self._chance.uniform(*_TRAVEL), self._pushed + _APART)
        self._loop.call_at(self._pushed, listener, message, context=self.context)

    # --- faults ---------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Every connection to Redis breaks: what waits hears so, what is under way is not known about."""
        self.losses += 1
        for reply, task in list(self._open.items()):
            if task is not None:
                task.cancel()
            self._answer(reply, None, Unavailable("the connection was lost"))

    def restored(self) -> None:
        """Connected again: pushes were missed."""
        for missed in self._missed:
            self._loop.call_soon(missed, context=self.context)

    def hang_up(self) -> None:
        """The process is gone: the server ends its blocked reads."""
        for task in self._open.values():
            if task is not None:
                task.cancel()

    def _trap(self, name: str) -> Trap | None:
        """The trap that this call springs."""
        for trap in self.traps:
            if trap.call == name:
                trap.nth -= 1
                if trap.nth <= 0:
                    self.traps.remove(trap)
                    self._tell(self.home.name, f"trap {trap.call} {trap.what}")
                    return trap
        return None

    async def _struck(self, what: What) -> None:
        """Before the call is sent. A dead process is never heard of again; a stopped one goes on some day."""
        self._strike(what)
        if what == "lose_reply":
            raise Unavailable("the connection was lost")
        await asyncio.sleep(0)


def brief(result: Any, error: Exception | None) -> str:
    """A result as one word or two for the trace."""
    if error is not None:
        return type(error).__name__
    state = getattr(result, "state", None)
    if state is not None:
        return str(state)
    return f"{len(result)}" if isinstance(result, list | dict | tuple | bytes | frozenset) else str(result)


def rows_of(found: object) -> Sequence[Row]:
    """The entries of a read, of whichever kind."""
    if isinstance(found, Pulled):
        return [row for rows in found.rows if not isinstance(rows, str) for row in rows]
    return cast(Sequence[Row], found or ())
