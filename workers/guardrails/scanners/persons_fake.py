"""A recogniser that knows exactly the names it was given: for tests, examples and dry runs without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from schemas.errors import Unavailable


class ScriptedNames:
    """Finds the given names wherever they stand. `broken`: every call fails as a dead child's would."""

    def __init__(self, *names: str, broken: bool = False) -> None:
        self._names = names
        self._broken = broken
        self.calls = 0

    async def find(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        self.calls += 1
        if self._broken:
            raise Unavailable("the scripted recogniser is broken on purpose")
        pattern = re.compile("|".join(map(re.escape, self._names)) or r"(?!)")
        return [[match.span() for match in pattern.finditer(text)] for text in texts]
