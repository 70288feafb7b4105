"""Taking over what silent consumers hold: a few entries at a time, each start counted before it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runtime.calm import Calm
from runtime.group_spec import Counters, Spec
from runtime.groups import Groups, Row
from runtime.in_hand import InHand
from runtime.scripts import Scripts

_ONE_BY_ONE_S = (0.01, 0.25)  # how long a taken-over entry may run before the next one: the first time, and later
_AT_ONCE = 16  # entries of one look at what is idle


@dataclass(slots=True)
class Taking:
    """Of one group's engine. begin: start on an entry that was started so often, None when there is nothing to start;
    bury: it was started too often, for this reason."""

    spec: Spec
    groups: Groups
    scripts: Scripts
    consumer: str
    hand: InHand
    calm: Calm
    counters: Counters
    begin: Callable[[Row, int], asyncio.Task[None] | None]
    bury: Callable[[Row, int, str], Awaitable[None]]
    over: bool = False

    def end(self) -> None:
        """Begin nothing more."""
        self.over = True

    async def look(self, stream: str) -> None:
        """Take over what is idle until there is no more or no room. GroupLost, Unavailable."""
        await self.calm.watch(stream)
        while await self._some(stream) == _AT_ONCE:
            pass

    async def _some(self, stream: str) -> int:
        count = max(0, min(self.hand.free, _AT_ONCE)) or 1
        idle, taken = await self.groups.idle(stream, self.spec.group, self.spec.idle_ms, count), 0
        if not idle or not await self.calm.reached(stream):
            return 0
        for entry in idle:
            if self.over or self.hand.find(stream, entry) or not self.hand.has_room(stream):
                break
            await self._take(stream, entry)
            taken += 1
        return taken

    async def _take(self, stream: str, entry: str) -> None:
        taken = await self.scripts.take(stream, self.spec.group, self.consumer, self.spec.idle_ms, entry)
        if taken.state == "missing":
            self.counters.missing += 1
        if taken.state != "taken":
            return
        self.counters.redelivered += 1
        row = Row(stream, entry, taken.fields)
        if taken.starts >= self.spec.max_starts:
            await self.bury(row, taken.starts, f"started {taken.starts} times and never finished")
        elif (task := self.begin(row, taken.starts)) is not None:
            await asyncio.wait({task}, timeout=_ONE_BY_ONE_S[taken.starts > 1])
