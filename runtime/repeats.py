"""Requests with an Idempotency-Key: one run for all of them, whoever asks and however often.

The script of acceptance decides in the key's partition, so of two at the same time one starts the run and the other
watches it. What Redis no longer has (an answer longer ended than frames are kept, or everything, if its data was lost)
the archive tells. A run that was refused, failed before its first token or was cancelled leaves nothing: the next
request is the next life of the key, under another run id, so that the record keeps both.

    new        this request is the run                   other   422
    watched    read that run from its first event        gone    read it from the archive
    again      be the next life                          unknown ask the archive, then be sure
    ending     it is being cancelled: wait a moment
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from msgspec import structs

from base import metrics
from base.clock import Clock
from base.ids import derive_run_id
from runtime import faults
from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.disk import Strict
from runtime.seals import Seals
from runtime.watch import Hub, StreamWatch
from schemas.errors import Code, Failure, Refusal, Unavailable
from schemas.frames import StoredFrame, unpack
from schemas.ports import Archive, NewRun, Once
from schemas.records import ArchiveRecord

T = TypeVar("T")

_ARCHIVE_S = 3.0  # a question to the archive
_ENDING_S = (0.05, 2.0)  # a run of the key is being cancelled: until it is looked at again, and how long in all
_LIVES = 64  # of a key whose lives in Redis were forgotten: how many are looked up in the record at once
_REUSED = "This Idempotency-Key was used for another request. Send that request again, or choose a new key."
_LOST = Failure(
    code=Code.store_unavailable.value,
    message="The request with this Idempotency-Key was answered, but its answer is no longer kept. Choose a new key.",
    should_retry=False,
)


class Entrance(Protocol):
    """runtime.door.StreamDoor, as seen from here."""

    hub: Hub

    def watch_new(self, new: NewRun) -> StreamWatch: ...

    def acceptance(self, new: NewRun, watch: StreamWatch) -> Acceptance: ...

    def undone(self, watch: StreamWatch, error: BaseException, new: Acceptance, names: Sequence[str] = ()) -> None: ...

    def way_in(self, strict: bool) -> Strict: ...

    def overloaded(self, new: NewRun) -> Refusal: ...

    def replay(self, kept: ArchiveRecord, after: int) -> StreamWatch: ...


class Repeats:
    """Acceptance under an Idempotency-Key, for one door."""

    def __init__(self, door: Entrance, archive: Archive | None, partitions: int, clock: Clock) -> None:
        self._door, self._archive = door, archive
        self._partitions, self._clock = partitions, clock

    async def accept(self, new: NewRun, once: Once) -> StreamWatch:
        """The run of the key, watched from its start. See schemas.ports.Door.accept."""
        repeat, ids = Repeat(marks=once.marks), self._ids(once, new.accepted.keep_ms)
        patience = self._clock.monotonic() + _ENDING_S[1]
        while True:
            watch, seen = await self._ask(_as_life(new, once, ids(repeat.life)), repeat)
            if seen.state == "new":
                metrics.inc("headrace_idempotent_total", outcome="new")
                return watch
            full = self._door.overloaded(new) if seen.state == "full" else None
            watch.close()
            if full is not None:
                raise full
            match seen.state:
                case "again":
                    repeat = replace(repeat, life=seen.life)
                case "watched":
                    return _replayed(self._door.hub.watch(seen.run, watch.watcher, behind=True), "watched")
                case "ending":
                    await self._wait_for_its_end(seen.run, patience)
                case "other":
                    raise _reused()
                case _:
                    kept = await self._kept(once)
                    if kept is not None:
                        return self._answer(kept, once)
                    if seen.state == "gone":
                        raise Refusal(_LOST)
                    repeat = replace(repeat, asked=True, life=await self._unspent(ids))

    def _ids(self, once: Once, keep_ms: int) -> Lives:
        """Ids of the key's lives. They begin anew with each span of keep_ms: then no earlier one is known any more."""
        now = self._clock.now_ms()
        return Lives(once.marks[0].name, now - now % max(keep_ms, 1), once.spread % self._partitions)

    async def _ask(self, new: NewRun, repeat: Repeat) -> tuple[StreamWatch, Accepted]:
        watch = self._door.watch_new(new)
        acceptance = self._door.acceptance(new, watch)
        faults.hit("ingress", "P3")
        try:
            seen = await self._door.way_in(new.strict).accept_once(acceptance, repeat)
        except BaseException as error:
            self._door.undone(watch, error, acceptance, [mark.name for mark in repeat.marks])
            raise
        faults.hit("ingress", "P4")
        return watch, seen

    async def _wait_for_its_end(self, run: str, until: float) -> None:
        if self._clock.monotonic() >= until:
            raise Unavailable(f"the request with this Idempotency-Key is being cancelled ({run})")
        await self._clock.sleep(_ENDING_S[0])

    async def _kept(self, once: Once) -> ArchiveRecord | None:
        if self._archive is None:
            return None
        names = [mark.name for mark in once.marks]
        return await _soon(self._archive.find_once(once.tenant, names, self._clock.now_ms()))

    def _answer(self, kept: ArchiveRecord, once: Once) -> StreamWatch:
        if (kept.once, kept.asked) not in {(mark.name, mark.asked) for mark in once.marks}:
            raise _reused()
        return _replayed(self._door.replay(kept, 0), "archived")

    async def _unspent(self, ids: Lives) -> int:
        """The first life that the record does not know as one without an answer."""
        first = 0
        while self._archive is not None:
            lives = range(first, first + _LIVES)
            spent = await _soon(self._archive.spent([ids(life) for life in lives]))
            for life in lives:
                if ids(life) not in spent:
                    return life
            first += _LIVES
        return first


class Lives:
    """The run id of each life of a key."""

    def __init__(self, name: str, window_ms: int, partition: int) -> None:
        self._name, self._window_ms, self._partition = name, window_ms, partition

    def __call__(self, life: int) -> str:
        return derive_run_id(self._name, life, self._window_ms, self._partition)


def _as_life(new: NewRun, once: Once, run: str) -> NewRun:
    mark = once.marks[0]
    return structs.replace(new, accepted=structs.replace(new.accepted, run=run, once=mark.name, asked=mark.asked))


def _replayed(watch: StreamWatch, outcome: str) -> StreamWatch:
    metrics.inc("headrace_idempotent_total", outcome=outcome)
    watch.replayed = True
    return watch


async def _soon(answer: Awaitable[T]) -> T:
    """What the archive says; Unavailable when it hangs: a client waits for the status."""
    try:
        async with asyncio.timeout(_ARCHIVE_S):
            return await answer
    except TimeoutError:
        raise Unavailable("the archive does not answer") from None


def _reused() -> Refusal:
    metrics.inc("headrace_idempotent_total", outcome="reused")
    return Refusal.of(Code.idempotency_key_reused, _REUSED, param="idempotency-key")


class Archived:
    """The frames of one archived run. Implements runtime.runs.Runs."""

    def __init__(self, kept: ArchiveRecord) -> None:
        self._frames = unpack(kept.frames)

    async def fields(self, run: str) -> Mapping[str, bytes]:
        return {}

    async def checking_body(self, run: str) -> bytes | None:
        return None

    async def kept_body(self, run: str) -> bytes | None:
        return None

    async def frames(self, run: str, epoch: int, after: int, count: int) -> Sequence[StoredFrame]:
        return [frame for frame in self._frames if (frame.epoch, frame.sequence) > (epoch, after)][:count]

    async def places(self, runs: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        last = self._frames[-1]
        return dict.fromkeys(runs, (last.epoch, last.sequence))

    async def of_once(self, p: str, names: Sequence[str]) -> Sequence[str]:
        return ()


def replay(kept: ArchiveRecord, seals: Seals, after: int) -> StreamWatch:
    """Watch an archived run from event `after` + 1: a watch like any other, whose stream lies in the record."""
    return Hub(Archived(kept), seals, _nobody).watch(kept.run, "", after=after, behind=True, ours=False)


async def _nobody(run: str, watcher: str, reason: str) -> None:
    """Nobody waits for a reader of the archive."""
