"""Known bugs, planted one at a time, to see whether the simulation finds them: scripts/simulate --mutant NAME.

Each is a mistake that somebody made once, here or elsewhere, at the place where it would be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.claims import Claim
from runtime.memory import MemoryScripts
from runtime.names import once_key
from runtime.scripts import Ending, Said, SealedFrame, Watched, Write
from runtime.sweeper import Sweeper
from schemas.records import FactRecord, RequestRecord
from storage.memory import MemoryRequests
from tests.simulation.fleet import Engine
from tests.simulation.processes import Worker
from tests.simulation.wire import Wire, rows_of
from tests.simulation.world import Bugs, P


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug in words, and what plants it."""

    words: str
    bugs: Bugs


class WithoutOwner(MemoryScripts):
    """Flush and end take whoever comes for the owner. One of them alone is caught by what the other looks at."""

    async def flush(self, writes: Sequence[Write]) -> list[str]:
        return await super().flush([self._as_owners(write) for write in writes])

    def _as_owners(self, write: Write) -> Write:
        found = self._hash(write.run) or {}
        owner, epoch = found.get("owner", b"").decode(), int(found.get("epoch", 0))
        return Write(write.run, owner, epoch, write.last, write.frame)

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        found = self._hash(run) or {}
        if guard == "owner" and found.get("state") == b"running":
            value, place = found["owner"].decode(), f"{int(found['epoch'])}-{int(found['seq'])}"
        return await super().end(run, guard, value, place, frame, ending)


class ClaimWithoutNonce(MemoryScripts):
    """The owner is whatever process the entry is with, and an epoch that nobody compares."""

    def _own(self, run: str, found: dict[str, bytes], owner: str) -> Claim:
        return super()._own(run, found, "owner:same")

    async def flush(self, writes: Sequence[Write]) -> list[str]:
        return await super().flush([Write(w.run, "owner:same", w.epoch, w.last, w.frame) for w in writes])

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        return await super().end(run, guard, "owner:same" if guard == "owner" else value, place, frame, ending)


class WatcherForgotten(MemoryScripts):
    """The last watcher that leaves is still counted."""

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched:
        return await super().watch(run, watcher, add=True)


class AnswersForgotten(MemoryScripts):
    """An Idempotency-Key remembers nothing of a run that has ended."""

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        done = await super().end(run, guard, value, place, frame, ending)
        key = (self._hash(run) or {}).get("once", b"").decode()
        if done == "ok" and key in self._server.hashes:
            self._server.hashes[key]["fate"] = b"forgotten"
        return done


class BodiesNotCompared(MemoryScripts):
    """Who comes with a key that is known is shown its run, whatever he asked for."""

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        key = once_key(P, repeat.marks[0].name)
        asked = self._server.hashes.get(key, {}).get("asked", repeat.marks[0].asked.encode()).decode()
        return await super().accept_once(new, replace(repeat, marks=[replace(repeat.marks[0], asked=asked)]))


class GraceIsNone(MemoryScripts):
    """Whatever a run's policy is, the last one that leaves ends it."""

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched:
        return replace(await super().watch(run, watcher, add=add), policy="cancel")


class FactWithoutUniqueness(MemoryRequests):
    """Every delivery of a fact makes a row."""

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        for fact in facts:
            self._facts[fact.run, fact.kind, 1000 + len(self._facts)] = fact
        return await super().write([], requests)


class AckFirst(Wire):
    """A verdict's entry is acknowledged before the verdict is stored."""

    async def call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        told: Sequence[Said] = args[0] if name == "verdicts" else ()
        for said in [answer for one in told for answer in one.answers]:
            if said.entry:
                await super().call("groups", "ack", (f"{P}:requests", said.family, [(said.entry, False)]), {})
        return await super().call(part, name, args, kwargs)


class AckOnRead(Wire):
    """Facts are acknowledged when they are read (what a library calls at most once)."""

    async def read(self, begin: Any, *groups: str) -> Any:
        found = await super().read(begin, *groups)
        for row in rows_of(found):
            if row.stream.endswith(":facts"):
                await self.call("groups", "ack", (row.stream, groups[0], [(row.entry, False)]), {})
        return found


class NeverSettles(Wire):
    """The ledger frees nothing."""

    async def call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return None if name == "settle" else await super().call(part, name, args, kwargs)


class GraceNeverEnds(Worker):
    """The sweeper does not look for runs whose grace is over."""

    def _sweeper(self) -> Sweeper:
        async def none(p: str) -> int:
            return 0

        sweeper = super()._sweeper()
        vars(sweeper)["_unwatched"] = none
        return sweeper


class BeginsAnew(Engine):
    """An engine that was said to go on with answers, and does not."""

    def begun(self, asked: dict[str, Any]) -> int:
        return 0


class SeamShows(Worker):
    """See BeginsAnew."""

    make_engine = BeginsAnew


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
    "answers-forgotten": Mutant("a repeat after the answer runs again", Bugs(scripts=AnswersForgotten)),
    "bodies-not-compared": Mutant("another request is shown this one's answer", Bugs(scripts=BodiesNotCompared)),
    "grace-is-none": Mutant("a grace is not waited for", Bugs(scripts=GraceIsNone)),
    "grace-never-ends": Mutant("nobody carries a grace out", Bugs(worker=GraceNeverEnds)),
    "seam-shows": Mutant("an answer begins anew where it should go on", Bugs(worker=SeamShows)),
    "ack-first": Mutant("acknowledged before it was done", Bugs(wire=AckFirst)),
    "ack-on-read": Mutant("acknowledged when it was read", Bugs(wire=AckOnRead)),
    "never-settles": Mutant("reservations are left to expire", Bugs(wire=NeverSettles)),
    "without-taking-over": Mutant("entries of the dead stay theirs", Bugs(worker=WithoutTakingOver)),
}
