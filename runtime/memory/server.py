"""The state behind the twins: streams with groups and pending lists, hashes, sets, expiry, push channels.

Only what delivery uses of Redis, with Redis' meanings. Every call of a twin gives the loop away once (`turn`), and
raises Unavailable while `away` is set.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from base.clock import Clock
from schemas.errors import Unavailable

Id = tuple[int, int]
Fields = dict[bytes, bytes]


def text_of(id: Id) -> str:
    """`<ms>-<n>` as Redis writes it."""
    return f"{id[0]}-{id[1]}"


def id_of(text: str) -> Id:
    """The reverse; ids sort as pairs of numbers."""
    head, _, tail = text.partition("-")
    return int(head), int(tail)


@dataclass(slots=True)
class Held:
    """A row of a pending list."""

    consumer: str
    since_ms: int


@dataclass(slots=True)
class Group:
    """A consumer group: what it was given last, what is not acknowledged, who ever read."""

    last: Id = (0, 0)
    pending: dict[Id, Held] = field(default_factory=dict)
    consumers: set[str] = field(default_factory=set)

    def holder(self, id: Id) -> str:
        """Who has the entry, "" when nobody does."""
        row = self.pending.get(id)
        return row.consumer if row else ""


@dataclass(slots=True)
class Stream:
    """Entries in the order of their ids."""

    entries: dict[Id, Fields] = field(default_factory=dict)
    last: Id = (0, 0)
    groups: dict[str, Group] = field(default_factory=dict)

    def after(self, id: Id) -> Iterator[tuple[Id, Fields]]:
        """Entries behind `id`."""
        return ((key, fields) for key, fields in self.entries.items() if key > id)


#: Attributes of MemoryServer that a real one would keep on disk and send to its replicas.
_STORED = (
    *("streams", "hashes", "bodies", "live", "bytes", "lanes", "starts"),
    *("gates", "routers", "servers", "doors", "left", "once", "_expires"),
)


class MemoryServer:
    """One server. `clock` is its TIME."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.away = False
        self.run_id = "1"  # another one after a restart or a failover
        self._bells: dict[str, list[asyncio.Event]] = {}  # stream -> the reads that wait for it
        self._listeners: dict[str, list[Callable[[bytes], None]]] = {}
        self.clear()

    def clear(self) -> None:
        """FLUSHALL."""
        self.streams: dict[str, Stream] = {}
        self.hashes: dict[str, dict[str, bytes]] = {}
        self.bodies: dict[str, bytes] = {}
        self.live: dict[str, dict[str, int]] = {}
        self.left: dict[str, dict[str, int]] = {}
        self.bytes: dict[str, int] = {}
        self.lanes: dict[str, set[str]] = {}
        self.doors: dict[str, dict[str, int]] = {}
        self.starts: dict[str, dict[str, int]] = {}
        self.once: dict[str, int] = {}  # {p}:once
        self.gates: dict[Any, Any] = {}  # runtime.memory.gate
        self.routers: dict[str, dict[str, int]] = {}
        self.servers: dict[str, tuple[str, int]] = {}  # runtime/lua/tenure.lua: prefix -> run id, since
        self._expires: dict[str, int] = {}
        self.wake()

    def replica(self) -> Mapping[str, Any]:
        """What a replica has that stops to follow now: a copy of everything that is stored."""
        return copy.deepcopy({name: getattr(self, name) for name in _STORED})

    def promote(self, replica: Mapping[str, Any]) -> None:
        """A failover: what was written since that replica stopped to follow is gone; another server is in charge."""
        for name, value in copy.deepcopy(dict(replica)).items():
            setattr(self, name, value)
        self.run_id = str(int(self.run_id) + 1)
        self.wake()

    async def turn(self) -> None:
        """What every call costs: one turn of the loop. Unavailable while the server is away."""
        await self.clock.sleep(0)
        if self.away:
            raise Unavailable("Redis is not connected")
        self._forget_expired()

    def now(self) -> int:
        """TIME, in milliseconds."""
        return self.clock.now_ms()

    def expire(self, key: str, ms: int) -> None:
        """PEXPIRE, for hashes, streams and bodies."""
        if key in self.hashes or key in self.streams or key in self.bodies:
            self._expires[key] = self.now() + ms

    def aside(self, p: str) -> int:
        """{p}:keeping:bytes: the bodies that wait for the archive."""
        return sum(len(body) for key, body in self.bodies.items() if key.startswith(f"{p}:kept:"))

    def expires(self, key: str) -> bool:
        """Whether the key has a time to live."""
        return key in self._expires

    def _forget_expired(self) -> None:
        now = self.now()
        for key in [key for key, at in self._expires.items() if at <= now]:
            self.drop(key)

    def drop(self, key: str) -> None:
        """DEL, for hashes, streams and bodies."""
        for kept in (self._expires, self.hashes, self.streams, self.bodies):
            kept.pop(key, None)

    def wake(self) -> None:
        """Let every blocked read look again."""
        for stream in tuple(self._bells):
            self._ring(stream)

    def _ring(self, stream: str) -> None:
        for bell in self._bells.get(stream, ()):
            bell.set()

    @contextmanager
    def waiting(self, streams: Sequence[str]) -> Iterator[asyncio.Event]:
        """A bell that rings at every entry of these streams, and when they are to be looked at again."""
        bell = asyncio.Event()
        for stream in streams:
            self._bells.setdefault(stream, []).append(bell)
        try:
            yield bell
        finally:
            for stream in streams:
                self._bells[stream].remove(bell)

    # --- streams --------------------------------------------------------------------------------------------------

    def add(self, key: str, fields: Mapping[str, str | bytes | int], id: Id | None = None, make: bool = True) -> str:
        """XADD; "" when the stream is missing and `make` is False. ValueError when the id is not above the last."""
        if key not in self.streams and not make:
            return ""
        stream = self.streams.setdefault(key, Stream())
        if id is None:
            id = max((self.now(), 0), (stream.last[0], stream.last[1] + 1))
        elif id <= stream.last:
            raise ValueError("equal or smaller")
        stream.entries[id] = {name.encode(): _bytes(value) for name, value in fields.items()}
        stream.last = id
        self._ring(key)
        return text_of(id)

    def group(self, key: str, group: str) -> Group | None:
        """The group, or None when it or its stream is missing."""
        stream = self.streams.get(key)
        return stream.groups.get(group) if stream else None

    def make_group(self, key: str, group: str) -> None:
        """XGROUP CREATE at 0 with MKSTREAM, unless it is there."""
        self.streams.setdefault(key, Stream()).groups.setdefault(group, Group())

    def ack(self, key: str, group: str, entry: str) -> None:
        """XACK."""
        found = self.group(key, group)
        if found is not None:
            found.pending.pop(id_of(entry), None)

    def delete(self, key: str, entry: str) -> None:
        """XDEL."""
        if key in self.streams:
            self.streams[key].entries.pop(id_of(entry), None)

    # --- push -----------------------------------------------------------------------------------------------------

    def subscribe(self, channel: str, listener: Callable[[bytes], None]) -> None:
        self._listeners.setdefault(channel, []).append(listener)

    def publish(self, channel: str, message: bytes) -> None:
        """To every listener, in the loop's next turn and in order."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners.get(channel, ()):
            loop.call_soon(listener, message)


def _bytes(value: str | bytes | int) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
