"""Which server is the master now, as Sentinel says.

All Sentinels are asked at once, and of those who answer the one with the newest configuration is believed: one that was
cut off from the others still names a master that they have replaced.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from base.clock import Clock
from base.replies import pairs
from runtime.address import Address, Guarded, Watcher
from runtime.wire import Wire, connect
from schemas.errors import Unavailable

_ANSWER_S = 1.0  # a Sentinel that needs longer is not waited for
_FRESH_S = 0.5  # connections of one process ask once


@dataclass(frozen=True, slots=True, order=True)
class Named:
    """What one Sentinel says. epoch: its configuration's number, higher is newer."""

    epoch: int
    host: str
    port: int


class Sentinels:
    """The Sentinels of one address; shared by the connections of a process."""

    def __init__(self, address: Address, clock: Clock) -> None:
        assert address.guarded is not None
        self._address, self._guarded, self._clock = address, address.guarded, clock
        self._asking: asyncio.Task[Address] | None = None
        self._asked = 0.0

    async def master(self) -> Address:
        """Where it is, half a second old at most. Unavailable when no Sentinel knows it."""
        now = self._clock.monotonic()
        if self._asking is None or (self._asking.done() and now - self._asked > _FRESH_S):
            self._asked = now
            self._asking = asyncio.create_task(self._ask_all())
            self._asking.add_done_callback(_heard)
        return await asyncio.shield(self._asking)

    async def _ask_all(self) -> Address:
        asked = [_ask(self._address, self._guarded, sentinel) for sentinel in self._guarded.sentinels]
        said = await asyncio.gather(*asked, return_exceptions=True)
        found = [answer for answer in said if isinstance(answer, Named)]
        if not found:
            why = "; ".join(
                f"{who}: {answer or type(answer).__name__}"
                for who, answer in zip(self._guarded.sentinels, said, strict=True)
            )
            raise Unavailable(f"no Sentinel knows a master {self._guarded.name!r} ({why})")
        newest = max(found)
        return self._address.at(newest.host, newest.port)


def _heard(task: asyncio.Task[Address]) -> None:
    """Whoever waited has been told; nobody may wait any more."""
    if not task.cancelled():
        task.exception()


async def _ask(address: Address, guarded: Guarded, sentinel: Watcher) -> Named:
    """One Sentinel's word. HeadraceError, OSError, TimeoutError."""
    async with asyncio.timeout(_ANSWER_S):
        wire = await connect(address.at(sentinel.host, sentinel.port))
        try:
            return await _question(wire, guarded)
        finally:
            wire.close()


async def _question(wire: Wire, guarded: Guarded) -> Named:
    """The address first: in the middle of a failover it is the promoted replica's before the description is."""
    name = guarded.name
    if guarded.password:
        await wire.send(("AUTH", guarded.username or "default", guarded.password))
    place, about = await asyncio.gather(
        wire.send(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)), wire.send(("SENTINEL", "MASTER", name))
    )
    facts: dict[Any, Any] = dict(pairs(about))
    return Named(int(facts.get(b"config-epoch", 0)), place[0].decode(), int(place[1]))
