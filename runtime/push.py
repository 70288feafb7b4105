"""Push channels: frames for an ingress, cancels for a router. Sharded publish, so it stays in the partition's slot.

A push is only the fast path. Whoever listens must be able to live without it: readers catch up from the stream,
owners hear a cancel with their next beat. After a reconnection every listener is told, since pushes were missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from base.clock import Clock
from base.ids import Random
from runtime.client import Address, Client
from runtime.sentinel import Sentinels

Listener = Callable[[bytes], None]


class Push(Protocol):
    """Subscriptions of one process."""

    async def listen(self, channels: Sequence[str], listener: Listener, missed: Callable[[], None]) -> None:
        """Call `listener` with each message; `missed` after a gap in the subscription."""
        ...


class RedisPush:
    """One connection that only listens (RESP3 push messages)."""

    def __init__(
        self, address: Address, clock: Clock, chance: Random, name: str, sentinels: Sentinels | None = None
    ) -> None:
        self._client = Client(address, clock, chance, name=f"{name}:push", push=self._hear, sentinels=sentinels)
        self._listeners: dict[bytes, Listener] = {}
        self._missed: list[Callable[[], None]] = []
        self._client.on_connect(self._again)

    async def start(self) -> None:
        """Unavailable when the server is away."""
        await self._client.connect()

    async def stop(self) -> None:
        await self._client.close()

    async def listen(self, channels: Sequence[str], listener: Listener, missed: Callable[[], None]) -> None:
        for channel in channels:
            self._listeners[channel.encode()] = listener
        self._missed.append(missed)
        self._subscribe(channels)

    def _subscribe(self, channels: Sequence[str | bytes]) -> None:
        """One command per channel: they may lie in different slots. The answer is a push, so nothing is awaited."""
        for channel in channels:
            self._client.post("SSUBSCRIBE", channel)

    async def _again(self) -> None:
        self._subscribe(list(self._listeners))
        for missed in self._missed:
            missed()

    def _hear(self, message: list[Any]) -> None:
        if len(message) == 3 and message[0] == b"smessage":
            listener = self._listeners.get(message[1])
            if listener is not None:
                listener(message[2])
