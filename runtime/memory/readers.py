"""MemoryGroups, MemoryPuller, MemoryRuns, MemoryPush: reading from a MemoryServer as from a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from base.ids import is_run_id
from runtime.groups import GroupLost, Row
from runtime.memory.server import Group, Held, MemoryServer, id_of, text_of
from runtime.names import kept_key, once_key, prefix_of, starts_key, stream_prefix
from runtime.push import Listener
from runtime.together import BLOCK_MS, BODY_BYTES, Pulled, Together, Want
from schemas.frames import StoredFrame

_RUN = re.compile(rb'"run":"([0-9A-Za-z-]+)"')


class MemoryGroups:
    """Twin of runtime.groups.RedisGroups: one per engine."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self.interrupted = False

    async def ensure(self, stream: str, group: str) -> None:
        await self._server.turn()
        self._server.make_group(stream, group)

    async def read(self, streams: Sequence[str], group: str, consumer: str, count: int, block_ms: int) -> Sequence[Row]:
        """Waiting ends by an entry, by `unblock`, by the loss of a group, or by the time."""
        self.interrupted = False
        timer = asyncio.ensure_future(self._server.clock.sleep(block_ms / 1000))
        try:
            with self._server.waiting(streams) as bell:
                timer.add_done_callback(lambda _: bell.set())
                while True:
                    await self._server.turn()
                    bell.clear()
                    rows = self.give(streams, group, consumer, count)
                    if rows or timer.done() or self.interrupted:
                        return rows
                    await bell.wait()
        finally:
            timer.cancel()

    def give(self, streams: Sequence[str], name: str, consumer: str, count: int) -> list[Row]:
        rows: list[Row] = []
        for key in streams:
            group = self._group(key, name)
            group.consumers.add(consumer)
            fresh = list(self._server.streams[key].after(group.last))[:count]
            for id, fields in fresh:
                group.last = id
                group.pending[id] = Held(consumer, self._server.now())
                rows.append(Row(key, text_of(id), dict(fields)))
        return rows

    def _group(self, key: str, name: str) -> Group:
        group = self._server.group(key, name)
        if group is None:
            raise GroupLost(f"NOGROUP No such key '{key}' or consumer group '{name}'")
        return group

    async def unblock(self) -> None:
        await self._server.turn()
        self.interrupted = True
        self._server.wake()

    async def ack(self, stream: str, group: str, entries: Sequence[tuple[str, bool]]) -> None:
        await self._server.turn()
        for entry, counted in entries:
            if counted:
                self._server.starts.get(starts_key(stream, group), {}).pop(entry, None)
            self._server.ack(stream, group, entry)

    async def mark(self, stream: str, group: str, entry: str) -> None:
        await self._server.turn()
        counts = self._server.starts.setdefault(starts_key(stream, group), {})
        counts[entry] = counts.get(entry, 0) + 1

    async def idle(self, stream: str, group: str, idle_ms: int, count: int) -> Sequence[str]:
        await self._server.turn()
        since = self._server.now() - idle_ms
        pending = sorted(self._group(stream, group).pending.items())
        return [text_of(id) for id, row in pending if row.since_ms <= since][:count]

    async def losses(self) -> int:
        await self._server.turn()
        return 0


class MemoryPuller:
    """Twin of runtime.together.RedisPuller; `groups` are whose entries it hands out."""

    def __init__(self, server: MemoryServer, groups: MemoryGroups) -> None:
        self._server, self._groups = server, groups

    async def pull(self, stream: str, wants: Sequence[Want]) -> Pulled:
        await self._server.turn()
        return self._pull(stream, wants, rung=False)

    async def wait(self, stream: str, last: str, wants: Sequence[Want]) -> Pulled:
        self._groups.interrupted = False
        timer = asyncio.ensure_future(self._server.clock.sleep(BLOCK_MS / 1000))
        try:
            with self._server.waiting((stream,)) as bell:
                timer.add_done_callback(lambda _: bell.set())
                while True:
                    await self._server.turn()
                    bell.clear()
                    rung = self._has(stream, last)
                    if rung or timer.done() or self._groups.interrupted:
                        return self._pull(stream, wants, rung=rung)
                    await bell.wait()
        finally:
            timer.cancel()

    def _has(self, stream: str, last: str) -> bool:
        found = self._server.streams.get(stream)
        return found is not None and any(True for _ in found.after(id_of(last)))

    def _pull(self, stream: str, wants: Sequence[Want], *, rung: bool) -> Pulled:
        said = [self._said(stream, want) for want in wants]
        found = self._server.streams.get(stream)
        return Pulled(text_of(max(found.entries, default=(0, 0))) if found else "0-0", said, rung)

    def _said(self, stream: str, want: Want) -> Sequence[Row] | str:
        try:
            rows = self._groups.give((stream,), want.group, want.consumer, want.count)
        except GroupLost as lost:
            return str(lost)
        return [msgspec.structs.replace(row, body=self._body(row)) for row in rows]

    def _body(self, row: Row) -> bytes:
        run = _RUN.search(row.fields.get(b"e", b""))
        p = stream_prefix(row.stream)
        body = self._server.bodies.get(f"{p}body:{run.group(1).decode()}", b"") if run else b""
        return body if len(body) <= BODY_BYTES else b""


class MemoryShared(MemoryGroups):
    """Twin of runtime.together.SharedGroups. reader: the groups of the puller, shared by all that read together."""

    def __init__(self, server: MemoryServer, reader: MemoryGroups, together: Together) -> None:
        super().__init__(server)
        self._reader, self._together, self._name = reader, together, ""

    async def read(self, streams: Sequence[str], group: str, consumer: str, count: int, block_ms: int) -> Sequence[Row]:
        self._name = group
        return await self._together.read(Want(group, consumer, count))

    async def unblock(self) -> None:
        await self._together.end(self._name, self._reader.unblock)


class MemoryRuns:
    """Twin of runtime.runs.RedisRuns."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def fields(self, run: str) -> Mapping[str, bytes]:
        await self._server.turn()
        return dict(self._server.hashes.get(f"{prefix_of(run)}:run:{run}", {})) if is_run_id(run) else {}

    async def checking_body(self, run: str) -> bytes | None:
        await self._server.turn()
        return self._server.bodies.get(f"{prefix_of(run)}:body:{run}")

    async def kept_body(self, run: str) -> bytes | None:
        await self._server.turn()
        return self._server.bodies.get(kept_key(run))

    async def frames(self, run: str, epoch: int, after: int, count: int) -> Sequence[StoredFrame]:
        await self._server.turn()
        stream = self._server.streams.get(f"{prefix_of(run)}:reply:{run}")
        rows = list(stream.after((epoch, after)))[:count] if stream else []
        return [
            StoredFrame(
                epoch=id[0],
                sequence=id[1],
                kind=fields[b"k"].decode(),
                events=int(fields[b"n"]),
                payload=fields[b"d"],
                headers=fields.get(b"h", b""),
            )
            for id, fields in rows
        ]

    async def places(self, runs: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        await self._server.turn()
        found = {run: self._server.hashes.get(f"{prefix_of(run)}:run:{run}") for run in runs}
        return {run: (int(row["epoch"]), int(row["seq"])) if row else None for run, row in found.items()}

    async def of_once(self, p: str, names: Sequence[str]) -> Sequence[str]:
        await self._server.turn()
        found = [self._server.hashes.get(once_key(p, name)) for name in names]
        return [mark["run"].decode() for mark in found if mark]


class MemoryPush:
    """Twin of runtime.push.RedisPush. Nothing is ever missed."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def listen(self, channels: Sequence[str], listener: Listener, missed: Callable[[], None]) -> None:
        await self._server.turn()
        for channel in channels:
            self._server.subscribe(channel, listener)
