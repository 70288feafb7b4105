"""Several groups of one process that read the same stream, read together: one wait and one read for all of them.

Each group reading alone costs a connection, a wake-up and a write for every entry. Here one connection waits for any
new entry, and the read for every group that has asked follows in the same write (runtime/lua/pull.lua).

- The wait begins behind the last entry that the read before saw, so nothing that comes between them is missed.
- A group that was not among those read for, or got as many as it asked for, may have more: before it waits again it
  is read for at once, over the connection that everybody shares.
- A read that fails says nothing about what is left, so the next one does not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from base.clock import Clock
from base.replies import pairs
from runtime.client import Client
from runtime.groups import GroupLost, RedisGroups, Row
from runtime.names import stream_prefix
from runtime.pace import Pace
from runtime.scripts import source
from schemas.ports import Redis

BLOCK_MS = 5000  # one wait
_UNBLOCK_S = 0.02  # between two attempts to end a wait
_ATTEMPTS = 20
BODY_BYTES = 16 * 1024  # a longer body does not come along with its entry


class Want(msgspec.Struct, frozen=True):
    """What one group asks for: at most `count` entries, for this consumer."""

    group: str
    consumer: str
    count: int


class Pulled(msgspec.Struct, frozen=True):
    """last: the stream's last entry at that moment. rows: for each that asked, in order; a text says why its group
    could not be read. rung: a new entry ended the wait."""

    last: str
    rows: Sequence[Sequence[Row] | str]
    rung: bool = False


class Puller(Protocol):
    """Reading for several groups at once. Both raise Unavailable."""

    async def pull(self, stream: str, wants: Sequence[Want]) -> Pulled:
        """What there is now."""
        ...

    async def wait(self, stream: str, last: str, wants: Sequence[Want]) -> Pulled:
        """The same, once an entry lies behind `last`, or after some seconds, or `unblock`."""
        ...


class RedisPuller:
    """On a server: `reader` blocks, `writer` is shared."""

    def __init__(self, writer: Redis, reader: Client) -> None:
        self._writer, self._reader = writer, reader

    async def pull(self, stream: str, wants: Sequence[Want]) -> Pulled:
        reply = await self._writer.script(source("pull"), (stream,), _args(stream, wants))
        return _pulled(stream, reply, rung=False)

    async def wait(self, stream: str, last: str, wants: Sequence[Want]) -> Pulled:
        """Both commands leave in one write; the server runs the second when the first has ended."""
        ring = self._reader.send("XREAD", "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", stream, last)
        try:
            reply = await self._reader.script(source("pull"), (stream,), _args(stream, wants))
        except BaseException:
            if not ring.cancel():
                ring.exception()  # whatever it was, the read says it too
            raise
        return _pulled(stream, reply, rung=bool(await ring))


def _args(stream: str, wants: Sequence[Want]) -> list[str | bytes | int]:
    args: list[str | bytes | int] = [stream_prefix(stream).rstrip(":"), BODY_BYTES]
    for want in wants:
        args += (want.group, want.consumer, want.count)
    return args


def _pulled(stream: str, reply: Sequence[Any], *, rung: bool) -> Pulled:
    last, groups, entries = reply
    rows = {
        entries[i]: Row(stream, entries[i].decode(), dict(pairs(entries[i + 1])), entries[i + 2])
        for i in range(0, len(entries), 3)
    }
    return Pulled(
        last.decode(),
        [said.decode() if isinstance(said, bytes) else [rows[entry] for entry in said] for said in groups],
        rung,
    )


class _Asking(msgspec.Struct):
    """A group that waits for entries."""

    want: Want
    rows: asyncio.Future[Sequence[Row]]


@dataclass(slots=True)
class Together:
    """The reads of one stream in one process."""

    stream: str
    puller: Puller
    clock: Clock
    _asking: dict[str, _Asking] = field(default_factory=dict)
    _drained: dict[str, int] = field(default_factory=dict)  # group -> the round after which it had nothing left
    _round: int = 0
    _last: str = ""  # as the last round saw it, "" = unknown: then nobody waits
    _waiting: bool = False  # for an entry, now
    _turns: asyncio.Task[None] | None = None
    _pace: Pace = field(default_factory=Pace)

    async def read(self, want: Want) -> Sequence[Row]:
        """New entries, waited for; nothing after some seconds or an `unblock`. GroupLost; Unavailable."""
        while self._waiting and not self._is_drained(want):
            if rows := await self._now(want):
                return rows
        return await self._join(want)

    async def end(self, group: str, unblock: Callable[[], Awaitable[None]]) -> None:
        """End the present read of a group with no entries; what was asked for in its name is read or given up then. A
        wait that was only just sent may come after the first attempt."""
        present = self._asking.get(group)
        for _ in range(_ATTEMPTS):
            if present is None or self._asking.get(group) is not present:
                return
            await unblock()
            await self.clock.sleep(_UNBLOCK_S)

    def _is_drained(self, want: Want) -> bool:
        """Whether an entry for this group would ring."""
        return self._drained.get(want.group) == self._round

    async def _now(self, want: Want) -> Sequence[Row]:
        """What there is for one group, beside the others' wait: what comes after this look rings for them."""
        present = self._round
        (rows,) = (await self.puller.pull(self.stream, [want])).rows
        if isinstance(rows, str):
            raise GroupLost(rows)
        if len(rows) < want.count:
            self._drained[want.group] = present
        return rows

    async def _join(self, want: Want) -> Sequence[Row]:
        mine = self._asking[want.group] = _Asking(want, asyncio.get_running_loop().create_future())
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns(), name=f"{self.stream}:together")
        try:
            return await mine.rows
        finally:
            if self._asking.get(want.group) is mine:
                del self._asking[want.group]

    async def _take_turns(self) -> None:
        """As long as anybody asks."""
        try:
            while self._asking:
                await self._turn(list(self._asking.values()))
                await self.clock.sleep(self._pace.rest)  # at least those that were served ask again
        finally:
            self._turns = None

    async def _turn(self, asking: Sequence[_Asking]) -> None:
        """Read for all that ask; first wait for an entry, when none of them can have more already."""
        self._waiting = bool(self._last) and all(self._is_drained(one.want) for one in asking)
        waited, wants = self._waiting, [one.want for one in asking]
        try:
            seen = await (
                self.puller.wait(self.stream, self._last, wants) if waited else self.puller.pull(self.stream, wants)
            )
        except Exception as error:
            self._last = ""
            for one in asking:
                _fail(one, error)
            return
        finally:
            self._waiting = False
        self._round, self._last = self._round + 1, seen.last
        came = max((len(rows) for rows in seen.rows if not isinstance(rows, str)), default=0)
        self._pace.note(came, self.clock.monotonic())
        for one, rows in zip(asking, seen.rows, strict=True):
            self._serve(one, rows, ended=waited and not seen.rung)

    def _serve(self, one: _Asking, rows: Sequence[Row] | str, *, ended: bool) -> None:
        if isinstance(rows, str):
            _fail(one, GroupLost(rows))
            return
        if len(rows) < one.want.count:
            self._drained[one.want.group] = self._round
        if (rows or ended) and not one.rows.done():
            one.rows.set_result(rows)


def _fail(one: _Asking, error: Exception) -> None:
    if not one.rows.done():
        one.rows.set_exception(error)


class SharedGroups(RedisGroups):
    """One group among those that read together; all have the same reader."""

    def __init__(self, writer: Redis, reader: Client, together: Together) -> None:
        super().__init__(writer, reader)
        self._together, self._group = together, ""

    async def read(self, streams: Sequence[str], group: str, consumer: str, count: int, block_ms: int) -> Sequence[Row]:
        """See Groups. The streams are the one that is read together."""
        self._group = group
        return await self._together.read(Want(group, consumer, count))

    async def unblock(self) -> None:
        """See Groups. The others' reads end too, and they read again."""
        await self._together.end(self._group, super().unblock)
