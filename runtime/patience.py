"""How an engine bears with failures: steps that are repeated until they are done, loops that stumble and go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from base import logs
from base.clock import Clock
from base.ids import Random
from schemas.errors import HeadraceError, Unavailable

log = logs.room("runtime")

_BACKOFF = (0.05, 0.5)  # seconds, jittered, after any failure of the server


@dataclass(slots=True)
class Patience:
    """Of one group's engine."""

    group: str
    clock: Clock
    chance: Random

    async def insist(self, call: Callable[[], Awaitable[object]]) -> None:
        """Repeat a step of ours while the server is away; every such step may be run twice."""
        while True:
            try:
                await call()
                return
            except Unavailable as error:
                log.warning("waiting for Redis", group=self.group, reason=str(error))
                await self.pause()

    async def quietly(self, call: Awaitable[object]) -> None:
        """For steps whose failure others repair."""
        try:
            await call
        except HeadraceError as error:
            log.info("left to others", group=self.group, reason=str(error))
        except Exception:
            await self.stumbled("beating")

    async def stumbled(self, what: str) -> None:
        """A loop that ended would end its group's work without a word."""
        log.exception("a loop stumbled and goes on", group=self.group, loop=what)
        await self.pause()

    async def pause(self) -> None:
        await self.clock.sleep(self.backoff())

    def backoff(self) -> float:
        """Seconds until the next attempt."""
        return self.chance.uniform(*_BACKOFF)
