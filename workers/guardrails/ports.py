"""What this room needs from outside its rules, beside schemas.ports.Bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Names(Protocol):
    """Who recognises persons; scanners.persons.Persons is one, scanners.persons_fake.ScriptedNames another."""

    async def find(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Spans by text, in code points. schemas.errors.Unavailable when it can't judge."""
        ...
