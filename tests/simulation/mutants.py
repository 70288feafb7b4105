"""Known bugs, planted one at a time, to see whether the simulation finds them: scripts/simulate --mutant NAME.

Each is a mistake that somebody made once, here or elsewhere, at the place where it would be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.memory import MemoryScripts
from runtime.scripts import Answer, Claim, Ending, SealedFrame, Watched
from schemas.records import FactRecord, RequestRecord
from storage.memory import MemoryRequests
from tests.simulation.processes import Worker
from tests.simulation.wire import Wire
from tests.simulation.world import Bugs, P


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug in words, and what plants it."""

    words: str
    bugs: Bugs


class WithoutOwner(MemoryScripts):
    """Flush and end take whoever comes for the owner. One of them alone is caught by what the other looks at."""

    async def flush(self, run: str, owner: str, last: int, frame: SealedFrame) -> str:
        found = self._hash(run) or {}
        return await super().flush(run, found.get("owner", b"").decode(), last, frame)

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        found = self._hash(run) or {}
        if guard == "owner" and found.get("state") == b"running":
            value, place = found["owner"].decode(), f"{int(found['epoch'])}-{int(found['seq'])}"
        return await super().end(run, guard, value, place, frame, ending)


class ClaimWithoutNonce(MemoryScripts):
    """The owner is whatever process the entry is with, and an epoch that nobody compares."""

    async def claim(self, run: str, stream: str, entry: str, consumer: str, owner: str) -> Claim:
        return await super().claim(run, stream, entry, consumer, "owner:same")

    async def flush(self, run: str, owner: str, last: int, frame: SealedFrame) -> str:
        return await super().flush(run, "owner:same", last, frame)

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        return await super().end(run, guard, "owner:same" if guard == "owner" else value, place, frame, ending)


class WatcherForgotten(MemoryScripts):
    """The last watcher that leaves is still counted."""

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched:
        return await super().watch(run, watcher, add=True)


class FactWithoutUniqueness(MemoryRequests):
    """Every delivery of a fact makes a row."""

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        for fact in facts:
            self._facts[fact.run, fact.kind, 1000 + len(self._facts)] = fact
        return await super().write([], requests)


class AckFirst(Wire):
    """A verdict's entry is acknowledged before the verdict is stored."""

    async def call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "verdict" and isinstance(args[0], Answer) and args[0].entry:
            said = args[0]
            await super().call("groups", "ack", (f"{P}:requests", said.family, [(said.entry, False)]), {})
        return await super().call(part, name, args, kwargs)


class AckOnRead(Wire):
    """Facts are acknowledged when they are read (what a library calls at most once)."""

    async def read(self, groups: Any, *args: Any) -> Any:
        rows = await super().read(groups, *args)
        for row in rows:
            if row.stream.endswith(":facts"):
                await self.call("groups", "ack", (row.stream, args[1], [(row.entry, False)]), {})
        return rows


class NeverSettles(Wire):
    """The ledger frees nothing."""

    async def call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return None if name == "settle" else await super().call(part, name, args, kwargs)


class WithoutTakingOver(Worker):
    """Nobody looks after the entries of the dead."""

    async def begin(self) -> None:
        await super().begin()
        for engine in self.workers.engines:
            engine._loops[2].cancel()


MUTANTS = {
    "without-owner": Mutant("a stale owner's frames are stored", Bugs(scripts=WithoutOwner)),
    "claim-without-nonce": Mutant("two owners look the same", Bugs(scripts=ClaimWithoutNonce)),
    "watcher-forgotten": Mutant("a run goes on for nobody", Bugs(scripts=WatcherForgotten)),
    "fact-without-uniqueness": Mutant("a run is billed twice", Bugs(record=FactWithoutUniqueness)),
    "ack-first": Mutant("acknowledged before it was done", Bugs(wire=AckFirst)),
    "ack-on-read": Mutant("acknowledged when it was read", Bugs(wire=AckOnRead)),
    "never-settles": Mutant("reservations are left to expire", Bugs(wire=NeverSettles)),
    "without-taking-over": Mutant("entries of the dead stay theirs", Bugs(worker=WithoutTakingOver)),
}
