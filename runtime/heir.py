"""What a process does that was started in place of one that died: whoever saw the death need not wait for silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.group_spec import Spec
from runtime.scripts import Scripts


@dataclass(slots=True)
class Heir:
    """The dead consumer's entries of one group. of: its name, "" = nobody died; it must be dead."""

    of: str
    spec: Spec
    scripts: Scripts
    _seen: set[str] = field(default_factory=set)

    async def look(self, streams: Iterable[str]) -> None:
        """Once for each stream: what the dead one holds there may be taken over now, by anybody. Unavailable."""
        for stream in set(streams) - self._seen if self.of else ():
            await self.scripts.disown(stream, self.spec.group, self.of, self.spec.idle_ms)
            self._seen.add(stream)
