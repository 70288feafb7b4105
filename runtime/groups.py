"""Consumer groups of a server, as the engine needs them. The twin is runtime.memory.MemoryGroups.

Groups are created at `0` with MKSTREAM: what was published before the first consumer came is delivered.
Reading has a connection of its own, because XREADGROUP blocks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from runtime.client import Client, ServerError
from runtime.names import starts_key
from schemas.errors import Unavailable
from schemas.ports import Redis

#: What delivery sends about streams, besides adding entries and reading for a group; for the rights of Redis users.
COMMANDS = "xlen xrange xrevrange xinfo xpending xclaim xack xdel xtrim xgroup|create xgroup|delconsumer"


class Row(msgspec.Struct, frozen=True):
    """One entry as read: the stream's key, its id, its fields; the sealed body of its run where that came along."""

    stream: str
    entry: str
    fields: Mapping[bytes, bytes]
    body: bytes = b""


class GroupLost(Exception):
    """A stream or its group is gone (flushed, deleted): create it again at 0."""


class Groups(Protocol):
    """What the engine asks of a server. All raise Unavailable when it is away."""

    async def ensure(self, stream: str, group: str) -> None: ...

    async def read(self, streams: Sequence[str], group: str, consumer: str, count: int, block_ms: int) -> Sequence[Row]:
        """New entries, at most `count` per stream, waiting up to block_ms for the first. GroupLost."""
        ...

    async def unblock(self) -> None:
        """End a read that is waiting."""
        ...

    async def ack(self, stream: str, group: str, entries: Sequence[tuple[str, bool]]) -> None:
        """Acknowledge entries; True = its starts were counted and are forgotten."""
        ...

    async def mark(self, stream: str, group: str, entry: str) -> None:
        """Count one more start of an entry, before it happens."""
        ...

    async def idle(self, stream: str, group: str, idle_ms: int, count: int) -> Sequence[str]:
        """Ids of entries whose holder was silent for idle_ms."""
        ...

    async def losses(self) -> int:
        """Connections lost so far; Unavailable while there is none."""
        ...


class RedisGroups:
    """Groups on a server: `writer` is shared, `reader` belongs to one engine."""

    def __init__(self, writer: Redis, reader: Client) -> None:
        self._writer = writer
        self._reader = reader

    async def ensure(self, stream: str, group: str) -> None:
        try:
            await self._writer.execute("XGROUP", "CREATE", stream, group, "0", "MKSTREAM")
        except ServerError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read(self, streams: Sequence[str], group: str, consumer: str, count: int, block_ms: int) -> Sequence[Row]:
        head = ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "BLOCK", block_ms, "STREAMS")
        try:
            reply = await self._reader.send(*head, *streams, *([">"] * len(streams)))
        except ServerError as error:
            if str(error).startswith(("NOGROUP", "UNBLOCKED", "WRONGTYPE")):
                raise GroupLost(str(error)) from None
            raise
        return [
            Row(stream.decode(), entry.decode(), {flat[i]: flat[i + 1] for i in range(0, len(flat), 2)})
            for stream, entries in (reply or {}).items()
            for entry, flat in entries
        ]

    async def unblock(self) -> None:
        if self._reader.connected:
            await self._writer.execute("CLIENT", "UNBLOCK", self._reader.client_id)

    async def ack(self, stream: str, group: str, entries: Sequence[tuple[str, bool]]) -> None:
        counted = [entry for entry, was_counted in entries if was_counted]
        if counted:
            await self._writer.execute("HDEL", starts_key(stream, group), *counted)
        await self._writer.execute("XACK", stream, group, *(entry for entry, _ in entries))

    async def mark(self, stream: str, group: str, entry: str) -> None:
        await self._writer.execute("HINCRBY", starts_key(stream, group), entry, 1)

    async def idle(self, stream: str, group: str, idle_ms: int, count: int) -> Sequence[str]:
        try:
            rows: Sequence[Any] = await self._writer.execute(
                "XPENDING", stream, group, "IDLE", idle_ms, "-", "+", count
            )
        except ServerError as error:
            if str(error).startswith("NOGROUP"):
                raise GroupLost(str(error)) from None
            raise
        return [row[0].decode() for row in rows]

    async def losses(self) -> int:
        if not self._reader.connected:
            raise Unavailable("Redis is not connected")
        return self._reader.losses
