"""A process makes itself known to the others: who it is, which rooms it serves, whether it can take work."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from base import logs
from base.clock import Clock
from base.health import Health
from schemas.errors import HeadraceError
from schemas.records import ProcessRecord

BEAT_S = 5.0  # a third of the time after which a silent process is forgotten (state/processes.py)
log = logs.room("process")


class Book(Protocol):
    """Where processes are written down: state/processes.py."""

    async def announce(self, record: ProcessRecord) -> None: ...

    async def withdraw(self, consumer: str) -> None: ...


class Presence:
    """Announces one process, with the present word of its readiness check, until it has left."""

    def __init__(self, book: Book, consumer: str, health: Health, clock: Clock) -> None:
        self._book, self._consumer, self._health, self._clock = book, consumer, health, clock
        self._record: ProcessRecord | None = None
        self._beats: asyncio.Task[None] | None = None

    async def enter(self, record: ProcessRecord) -> None:
        """Be known from now on. Unavailable."""
        self._record = record
        await self.tell()
        self._beats = asyncio.create_task(self._beat(), name="presence")

    async def tell(self) -> None:
        """Say how it is now. Nothing before `enter`. Unavailable."""
        if self._record is None:
            return
        ready, checks = await self._health.ready()
        wrong = [f"{name}: {word}" for name, word in checks.items() if word != "ok" and name != "draining"]
        state = "draining" if self._health.draining else "ready" if ready else "troubled"
        await self._book.announce(replace(self._record, state=state, trouble="; ".join(wrong)))

    async def tell_if_possible(self) -> None:
        """The same; a server that is away keeps nobody from going on, or from going."""
        try:
            await self.tell()
        except HeadraceError as error:
            log.info("not announced", reason=str(error))

    async def leave(self) -> None:
        """Be forgotten. Unavailable."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        await self._book.withdraw(self._consumer)

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(BEAT_S)
            await self.tell_if_possible()


def make_record(
    consumer: str, rooms: tuple[str, ...], health: Health, addresses: Mapping[str, str], version: str, now_ms: int
) -> ProcessRecord:
    """This process as it stands once everything listens."""
    return ProcessRecord(
        consumer=consumer,
        rooms=rooms,
        pid=os.getpid(),
        host=socket.gethostname(),
        started_ms=now_ms,
        version=version,
        health=f"http://{health.host}:{health.port}",
        addresses=dict(addresses),
    )
