"""The frames of ended runs for group `archive`: read as they lie, sealed, and let go once they are kept elsewhere."""

from __future__ import annotations

from runtime.runs import Runs
from runtime.scripts import Scripts
from schemas.frames import StoredFrame

_PAGE = 256  # frames of one read


class Keeping:
    """Implements workers.audit.ports.Held."""

    def __init__(self, runs: Runs, scripts: Scripts) -> None:
        self._runs, self._scripts = runs, scripts

    async def frames(self, run: str) -> list[StoredFrame]:
        """All of them in order; empty when they are gone. Unavailable."""
        found: list[StoredFrame] = []
        epoch = sequence = 0
        while page := await self._runs.frames(run, epoch, sequence, _PAGE):
            found += page
            epoch, sequence = page[-1].epoch, page[-1].sequence
        return found

    async def let_go(self, run: str) -> None:
        """They are kept: Redis need not have them longer than those of any other run. Unavailable."""
        await self._scripts.archived(run)
