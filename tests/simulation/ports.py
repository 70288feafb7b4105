"""The product's Protocols over a wire: what a simulated process is given in place of a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from runtime.groups import Groups, Row
from runtime.memory import MemoryPuller
from runtime.push import Listener
from runtime.scripts import Scripts
from runtime.together import Pulled, Together, Want
from tests.simulation.server import JournaledGroups
from tests.simulation.wire import Wire


class Remote:
    """Every method of a twin, over the wire."""

    def __init__(self, wire: Wire, part: str) -> None:
        self._wire, self._part = wire, part

    def __getattr__(self, name: str) -> Any:
        carry = self._wire.record if self._part in ("record", "archive") else self._wire.call

        def call(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            return carry(self._part, name, args, kwargs)

        self.__dict__[name] = call  # asked for once
        return call


def remote_scripts(wire: Wire) -> Scripts:
    """The scripts over the wire."""
    return cast(Scripts, Remote(wire, "scripts"))


class RemotePuller:
    """Implements runtime.together.Puller over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reader: JournaledGroups | None = None

    async def pull(self, stream: str, wants: Sequence[Want]) -> Pulled:
        return await self._wire.read(lambda: self._begin().pull(stream, wants), *_names(wants))

    async def wait(self, stream: str, last: str, wants: Sequence[Want]) -> Pulled:
        return await self._wire.read(lambda: self._begin().wait(stream, last, wants), *_names(wants))

    def _begin(self) -> MemoryPuller:
        self._reader = JournaledGroups(self._wire.redis)
        return MemoryPuller(self._wire.redis.twins.memory, self._reader)

    async def unblock(self) -> None:
        if self._reader is not None:
            await self._reader.unblock()


def _names(wants: Sequence[Want]) -> list[str]:
    return [want.group for want in wants]


class RemoteGroups:
    """Implements runtime.groups.Groups for one engine: a reader with a connection of its own."""

    def __init__(self, wire: Wire, shared: tuple[RemotePuller, Together] | None = None) -> None:
        """shared: by all that read one stream together."""
        self._wire, self._shared = wire, shared
        self._plain = cast(Groups, Remote(wire, "groups"))
        self._reader: JournaledGroups | None = None
        self._group = ""

    async def ensure(self, stream: str, group: str) -> None:
        await self._plain.ensure(stream, group)

    async def read(self, streams: Sequence[str], group: str, consumer: str, count: int, block_ms: int) -> Sequence[Row]:
        if self._shared is not None:
            self._group = group
            return await self._shared[1].read(Want(group, consumer, count))
        return await self._wire.read(lambda: self._begin().read(streams, group, consumer, count, block_ms), group)

    def _begin(self) -> JournaledGroups:
        self._reader = JournaledGroups(self._wire.redis)
        return self._reader

    async def unblock(self) -> None:
        if self._shared is not None:
            await self._shared[1].end(self._group, self._shared[0].unblock)
        if self._reader is not None:
            await self._reader.unblock()

    async def ack(self, stream: str, group: str, entries: Sequence[tuple[str, bool]]) -> None:
        await self._plain.ack(stream, group, entries)

    async def mark(self, stream: str, group: str, entry: str) -> None:
        await self._plain.mark(stream, group, entry)

    async def idle(self, stream: str, group: str, idle_ms: int, count: int) -> Sequence[str]:
        return await self._plain.idle(stream, group, idle_ms, count)

    async def losses(self) -> int:
        return self._wire.losses


class RemotePush:
    """Implements runtime.push.Push."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def listen(self, channels: Sequence[str], listener: Listener, missed: Callable[[], None]) -> None:
        for channel in channels:
            self._wire.subscribe(channel, listener, missed)
