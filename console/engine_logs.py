"""The output of this machine's engines, as the provisioner keeps it: DIR/engines/<deployment>.log."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST = 1_000_000  # bytes read from the end


class FileLogs:
    """Implements admin.parts.EngineLogs over the data directory."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "engines"

    async def tail(self, deployment: str, lines: int) -> str | None:
        """The last `lines` lines, or None when this machine has no such log."""
        if not _NAME.fullmatch(deployment):
            return None
        return await asyncio.to_thread(_tail, self._folder / f"{deployment}.log", lines)


def _tail(path: Path, lines: int) -> str | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _MOST))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    return "\n".join(text.splitlines()[-lines:])
