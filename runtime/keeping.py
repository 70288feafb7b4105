"""The frames of ended runs for group `archive`: read as they lie, sealed, and let go once they are kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from runtime.runs import Runs
from runtime.scripts import Scripts
from runtime.seals import Seals
from schemas.frames import StoredFrame

_PAGE = 256  # frames of one read


class Keeping:
    """Implements workers.audit.ports.Held."""

    def __init__(self, runs: Runs, scripts: Scripts, seals: Seals) -> None:
        self._runs, self._scripts, self._seals = runs, scripts, seals

    async def frames(self, run: str) -> list[StoredFrame]:
        """All of them in order; empty when they are gone. Unavailable."""
        found: list[StoredFrame] = []
        epoch = sequence = 0
        while page := await self._runs.frames(run, epoch, sequence, _PAGE):
            found += page
            epoch, sequence = page[-1].epoch, page[-1].sequence
        return found

    async def body(self, run: str, rewrite: Callable[[bytes], bytes] | None = None) -> bytes:
        """The sealed body, where it is to be kept too; b"" when it is not or is gone. rewrite: what is to be kept of
        it, None = all as it lies. Unavailable; what `rewrite` raises."""
        sealed = await self._runs.kept_body(run) or b""
        if not sealed or rewrite is None:
            return sealed
        return self._seals.body(run, rewrite(self._seals.open_body(run, sealed)))

    async def let_go(self, run: str) -> bool:
        """They are kept: Redis need not have them longer than those of any other run. False = its client has deleted
        it meanwhile, and nobody is to keep it. Unavailable."""
        return await self._scripts.archived(run) != "deleted"
