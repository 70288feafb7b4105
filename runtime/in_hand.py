"""What an engine has in hand, what is on its way to it, and whether there is room for more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from runtime.item import Item
from runtime.places import Places


@dataclass(slots=True)
class InHand:
    """Entries by their place. most: how many an engine takes at once; places: room by pool, where runs have such."""

    most: int
    places: Places | None = None
    _items: dict[tuple[str, str], Item] = field(default_factory=dict)
    _expected: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    @property
    def free(self) -> int:
        """How many more may be taken."""
        return self.most - len(self._items) - self._expected

    def has_room(self, stream: str) -> bool:
        """Whether one more entry of the stream may be taken."""
        return self.free > 0 and (self.places is None or self.places.room(stream) > 0)

    def find(self, stream: str, entry: str) -> Item | None:
        return self._items.get((stream, entry))

    def has(self, item: Item) -> bool:
        """Whether it is still in hand, and not the same entry delivered anew."""
        return self._items.get(item.key) is item

    def add(self, item: Item) -> None:
        self._items[item.key] = item
        if self.places is not None:
            self.places.take(item.row.stream)

    def remove(self, items: Iterable[Item]) -> None:
        """They are done with, or another's."""
        for item in items:
            if self._items.get(item.key) is item:
                del self._items[item.key]
                if self.places is not None:
                    self.places.give(item.row.stream)
        self._changed.set()

    def by_stream(self) -> dict[str, list[Item]]:
        found: dict[str, list[Item]] = {}
        for item in self._items.values():
            found.setdefault(item.row.stream, []).append(item)
        return found

    def expect(self, stream: str, awaited: int) -> bool:
        """Keep a place for an entry of the stream, beside `awaited` of its pool that a read may bring; False = there
        is none, or other routers live, which may be idle."""
        if self.places is not None and (self.places.others or self.places.room(stream) <= awaited):
            return False
        self._expected += 1
        if self.places is not None:
            self.places.take(stream)
        return True

    def unexpect(self, stream: str) -> None:
        """It has come, or will not come."""
        self._expected -= 1
        if self.places is not None:
            self.places.give(stream)
        self._changed.set()

    async def settled(self, seconds: float) -> None:
        """Until nothing is expected any more, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._expected:
                    await self.wait()

    async def wait(self, seconds: float | None = None) -> None:
        """Until there may be more room, at most so long."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def wake(self) -> None:
        """End every `wait`."""
        self._changed.set()
