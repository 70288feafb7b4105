"""The simulated servers: Redis as the twins of runtime/ and state/ over one journal, PostgreSQL as storage's twin.

Every call that may write goes into the journal with its time. A failover that loses the last k writes is the journal
without them, played again from the start on empty twins: what was acknowledged comes back, what was stored is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any

from runtime.groups import Row
from runtime.memory import MemoryCommands, MemoryGroups, MemoryRuns, MemoryScripts, MemoryServer
from state.memory import MemoryBreakers, MemoryLatencies, MemoryLimits
from storage.memory import MemoryArchive, MemoryRequests
from tests.simulation.chance import ServerClock
from workers.router.settings import BreakerSettings

RETENTION_MS = 300_000
#: Calls that change nothing.
READS = frozenset(
    {"fields", "checking_body", "frames", "idle", "look", "TIME", "ZRANGE", "ZRANGEBYSCORE", "HMGET", "STRLEN"}
)

Entry = tuple[int, str, str, tuple[Any, ...], dict[str, Any]]


class Twins:
    """Everything that lies on one Redis server. scripts: a mutant's, where a test plants a bug."""

    def __init__(self, clock: ServerClock, scripts: Callable[[MemoryServer, int], MemoryScripts]) -> None:
        self.memory = MemoryServer(clock)
        self.scripts = scripts(self.memory, RETENTION_MS)
        self.runs = MemoryRuns(self.memory)
        self.commands = MemoryCommands(self.memory)
        self.limits = MemoryLimits(clock)
        self.breakers = MemoryBreakers(clock, BreakerSettings().limits())
        self.latencies = MemoryLatencies(clock)
        self.groups = MemoryGroups(self.memory)


class Store:
    """One server of either kind: it is up or away, and what a call does to it is done at once."""

    def __init__(self, context: Context) -> None:
        self.up = True
        self.context = context


class Postgres(Store):
    """The record and the archive."""

    def __init__(self, record: MemoryRequests) -> None:
        super().__init__(copy_context())
        self.record = record
        self.archive = MemoryArchive(record)


class Redis(Store):
    """The server that carries the streams. lost: writes that failovers took away."""

    def __init__(self, clock: ServerClock, scripts: Callable[[MemoryServer, int], MemoryScripts]) -> None:
        super().__init__(copy_context())
        self._clock, self._scripts = clock, scripts
        self.twins = Twins(clock, scripts)
        self.journal: list[Entry] = []
        self.lost = 0
        self._servers = 1
        self.on_call: Callable[[str, str, tuple[Any, ...], Any], None] = lambda *_: None
        self._subscribers: list[tuple[str, Callable[[bytes], None]]] = []

    def note(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call that may write was carried out."""
        self.journal.append((self._clock.now_ms(), part, name, args, kwargs))

    def call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry a call out, in one step."""
        if name not in READS and (name != "execute" or args[0] not in READS):
            self.note(part, name, args, kwargs)
        result = at_once(getattr(getattr(self.twins, part), name)(*args, **kwargs))
        self.on_call(part, name, args, result)
        return result

    def add(self, stream: str, fields: dict[str, bytes]) -> None:
        """An entry from nowhere."""
        self.note("memory", "add", (stream, fields), {})
        self.twins.memory.add(stream, fields)

    def subscribe(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """Hear what is pushed, on whichever server there is."""
        self._subscribers.append((channel, listener))
        self.twins.memory.subscribe(channel, listener)

    def fail_over(self, lose: int) -> None:
        """A replica takes over that had not heard of the last `lose` writes."""
        kept = max(0, len(self.journal) - lose)
        self.lost += len(self.journal) - kept
        del self.journal[kept:]
        self.twins = Twins(self._clock, self._scripts)
        for ms, part, name, args, kwargs in self.journal:
            self._clock.replayed = ms
            self._replay(part, name, args, kwargs)
        self._clock.replayed = None
        self._servers += 1
        self.twins.memory.run_id = str(self._servers)
        for channel, listener in self._subscribers:
            self.twins.memory.subscribe(channel, listener)

    def _replay(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "give":
            give(self.twins.groups, *args)
            return
        if name == "add":
            self.twins.memory.add(*args)
            return
        try:
            at_once(getattr(getattr(self.twins, part), name)(*args, **kwargs))
        except Exception:  # it failed the first time too, or rests on what is lost
            return


class JournaledGroups(MemoryGroups):
    """One consumer's reads: what was handed out is noted at that moment."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis.twins.memory)
        self._redis = redis

    def give(self, streams: Sequence[str], name: str, consumer: str, count: int) -> list[Row]:
        rows = super().give(streams, name, consumer, count)
        if rows:
            self._redis.note("groups", "give", (streams, name, consumer, count), {})
        return rows


def give(groups: MemoryGroups, streams: Sequence[str], name: str, consumer: str, count: int) -> None:
    """Hand out again what was handed out then."""
    try:
        groups.give(streams, name, consumer, count)
    except Exception:  # the stream is among what was lost
        return


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise AssertionError("a call of the twin waited")


def later(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    """Answer whoever still waits."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
        future.exception()
    else:
        future.set_result(result)
