"""Every process reads `control`: names of things to read again, and of the process that is to stop.

What is to be read again are hints without authority. Who may ask a process to stop stands in streams.yaml: an entry
counts only when its kind is one that its signed publisher may say there. After a lost connection entries may have been
missed, so the listener is told to forget everything it cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from base import logs
from base.clock import Clock
from base.ids import Random
from runtime.client import Client
from runtime.topology import Topology
from schemas import envelope as wire
from schemas.errors import HeadraceError, SignatureError, UnknownVersion

log = logs.room("runtime")

_BLOCK_MS = 5000


class Control:
    """Follows the control stream on a blocking connection of its own."""

    def __init__(
        self,
        reader: Client,
        topology: Topology,
        verifier: wire.VerifierPort,
        clock: Clock,
        chance: Random,
        hear: Callable[[Any], None],
        forget: Callable[[], None],
    ) -> None:
        self._reader, self._verifier = reader, verifier
        self._publishers = topology.streams["control"].publishers
        self._clock, self._chance = clock, chance
        self._hear, self._forget = hear, forget
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin at the present end of the stream."""
        self._task = asyncio.create_task(self._follow(), name="control")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        last, losses = "", self._reader.losses
        while True:
            try:
                if self._reader.losses != losses:
                    losses = self._reader.losses
                    self._forget()
                last = last or await self._end()
                reply = await self._reader.send("XREAD", "BLOCK", _BLOCK_MS, "STREAMS", "control", last)
            except HeadraceError:
                await self._clock.sleep(self._chance.uniform(0.05, 0.5))
                continue
            for entry, flat in (reply or {}).get(b"control", ()):
                last = entry.decode()
                self._one({flat[i]: flat[i + 1] for i in range(0, len(flat), 2)})

    async def _end(self) -> str:
        """The stream's last id now."""
        rows = await self._reader.send("XREVRANGE", "control", "+", "-", "COUNT", 1)
        return rows[0][0].decode() if rows else "0-0"

    def _one(self, fields: dict[bytes, bytes]) -> None:
        signed = wire.Signed(fields.get(b"e", b""), fields.get(b"s", b""))
        try:
            _, event = wire.verify(self._verifier, "control", self._publishers, signed)
        except UnknownVersion:
            self._forget()
        except (SignatureError, HeadraceError) as error:
            log.warning("control entry ignored", reason=str(error))
        else:
            self._hear(event)
