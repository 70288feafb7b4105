"""The output of this machine's engines, as the provisioner keeps it (workers/provisioner/targets/logs.py)."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from pathlib import Path

from base.clock import Clock
from workers.provisioner.targets import logs

_POLL_S = 0.25
_PIECE = 65_536  # bytes read at once


class FileLogs:
    """Implements admin.parts.EngineLogs over the data directory."""

    def __init__(self, data: Path, clock: Clock) -> None:
        self._folder, self._clock = data / "engines", clock
        self._closed = False

    async def tail(self, deployment: str, lines: int, *, replica: int = 1, previous: bool = False) -> str | None:
        """The last `lines` lines, or None when this machine has no such log."""
        path = self._path(deployment, replica)
        found = await asyncio.to_thread(logs.tail, path, lines, previous=previous) if path else None
        return None if found is None else "\n".join(found)

    async def last_line(self, deployment: str, replica: int) -> str:
        """The last thing the engine said, "" when nothing is known."""
        path = self._path(deployment, replica)
        return await asyncio.to_thread(logs.last_line, path) if path else ""

    async def follow(self, deployment: str, lines: int, *, replica: int = 1) -> AsyncIterator[str]:
        """The last `lines` lines, then every line as it is written, over restarts of the engine, until closed."""
        path = self._path(deployment, replica)
        if path is None:
            return
        place = await asyncio.to_thread(_size, path)
        for line in await asyncio.to_thread(logs.tail, path, lines) or []:
            yield line
        rest, decoder = "", codecs.getincrementaldecoder("utf-8")("replace")
        while not self._closed:
            piece, place = await asyncio.to_thread(_read, path, place)
            *whole, rest = (rest + decoder.decode(piece)).split("\n")
            if len(rest) > _PIECE:  # no line ends there: show it in pieces
                whole, rest = [*whole, rest], ""
            for line in whole:
                yield line.rstrip("\r")
            if not piece:
                await self._clock.sleep(_POLL_S)

    def close(self) -> None:
        """End what is being followed."""
        self._closed = True

    def _path(self, deployment: str, replica: int) -> Path | None:
        try:
            return logs.path_of(self._folder, deployment, replica)
        except ValueError:
            return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, place: int) -> tuple[bytes, int]:
    """What was written since; from the beginning when the log was emptied meanwhile."""
    try:
        with path.open("rb") as file:
            place = 0 if path.stat().st_size < place else place
            file.seek(place)
            piece = file.read(_PIECE)
    except OSError:
        return b"", 0
    return piece, place + len(piece)
