"""An event that calls whoever asked, at once: for those who would else need a task that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm(asyncio.Event):
    """Set once. `tell` asks for a call when it is set, `forget` takes that back."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: list[Callable[[], None]] = []

    def tell(self, call: Callable[[], None]) -> None:
        self._asked.append(call)

    def forget(self, call: Callable[[], None]) -> None:
        self._asked.remove(call)

    def set(self) -> None:
        """See asyncio.Event."""
        super().set()
        for call in list(self._asked):
            call()
