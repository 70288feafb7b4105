"""The door's side of delivery: make a run durable, watch it, let it go. Implements schemas.ports.Door."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from base import logs, metrics
from base.clock import Clock
from base.ids import Random, mint_run_id
from base.replies import time_ms
from policy.overload import come_back_s
from runtime import faults
from runtime.acceptance import Acceptance
from runtime.backlog import Backlog
from runtime.disk import Strict, no_promise
from runtime.leaving import cancel_run
from runtime.names import prefix, prefix_of
from runtime.repeats import Archived, Repeats, replay
from runtime.runs import Runs
from runtime.scripts import Scripts
from runtime.seals import Seals
from runtime.watch import Hub, StreamWatch
from schemas import envelope as wire
from schemas.errors import Code, DecodeError, HeadraceError, Refusal, Unavailable, UnknownVersion
from schemas.events import RequestAccepted
from schemas.frames import ERROR
from schemas.ports import Archive, NewRun, Redis, RunStatus, Watch
from schemas.records import ArchiveRecord

log = logs.room("runtime")

_FULL = "The gateway is at its bound of live requests."
_LATE = (
    "So many requests wait for this model that a new one would be answered in about {} s; with its deadline of {} s it "
    "is let in when {} s are expected."
)
_PAGE = 256  # frames of one read
_AWAY = (0.2, 1.0)  # seconds, jittered, between two tries of a farewell while Redis is away


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one partition takes in. checks_ms: how long the families have to answer. most_wait: the share of its
    deadline for which a run may be expected to be here, 0 = any."""

    most_runs: int = 10_000
    most_bytes: int = 1_000_000_000
    checks_ms: int = 30_000
    most_wait: float = 0.75


class StreamDoor:
    """One ingress process at the door of all partitions. archive: where ended answers are kept, if anywhere."""

    def __init__(
        self,
        name: str,
        partitions: int,
        scripts: Scripts,
        runs: Runs,
        seals: Seals,
        clock: Clock,
        chance: Random,
        bounds: Bounds,
        archive: Archive | None = None,
        disk: Strict | None = None,
    ) -> None:
        """disk: for strict runs; None = the server cannot say what is on its disk."""
        self.name = name
        self._disk = disk
        self._partitions, self._bounds = partitions, bounds
        self._scripts, self._runs, self._seals = scripts, runs, seals
        self._clock, self._chance = clock, chance
        self._next_partition = self._watchers = 0
        self._side: set[asyncio.Task[None]] = set()
        self.hub = Hub(runs, seals, self._left, clock)
        self._backlog = Backlog(clock)
        self._repeats = Repeats(self, archive, partitions, clock)

    def mint(self) -> str:
        """A new run id; partitions in turn."""
        self._next_partition = (self._next_partition + 1) % self._partitions
        return mint_run_id(self._clock, self._chance, self._next_partition)

    async def accept(self, new: NewRun) -> Watch:
        """See schemas.ports.Door.accept."""
        faults.hit("ingress", "P1")
        if new.once is not None:
            return await self._repeats.accept(new, new.once)
        watch = self.watch_new(new)
        if self._too_long(new):
            raise self._refused(new, watch)
        acceptance = self.acceptance(new, watch, late=False)
        faults.hit("ingress", "P3")
        try:
            fits, _ = await self.way_in(new.strict).accept(acceptance)
        except BaseException as error:
            self.undone(watch, error, acceptance)
            raise
        if not fits:
            raise self._refused(new, watch)
        faults.hit("ingress", "P4")
        return watch

    def watch_new(self, new: NewRun) -> StreamWatch:
        """A watch for a run that is about to be accepted; its client waits from now on."""
        watch = self.hub.watch(new.accepted.run, self._watcher())
        watch.stay = self._backlog.join(new.accepted.model, new.accepted.key_id)
        return watch

    def _watcher(self) -> str:
        """A name for one more client of this process."""
        self._watchers += 1
        return f"{self.name}#{self._watchers:x}"

    def acceptance(self, new: NewRun, watch: StreamWatch, late: bool | None = None) -> Acceptance:
        """What the script stores: the event signed, the body sealed. watch: its client's. late: whether it would
        wait too long, None = look: then nothing new is taken in, but what its Idempotency-Key has begun is shown."""
        accepted = new.accepted
        e = wire.encode(
            accepted,
            id=accepted.run,
            by=self._seals.publisher,
            run=accepted.run,
            trace=new.trace,
            deadline_ms=new.deadline_ms,
            at_ms=self._clock.now_ms(),
        )
        return Acceptance(
            run=accepted.run,
            signed=wire.sign(self._seals.signer, "requests", e),
            body=watch.seals.body(new.body),
            deadline_ms=new.deadline_ms,
            checks_ms=min(self._bounds.checks_ms, new.deadline_ms),
            most_runs=0 if late or (late is None and self._too_long(new)) else self._bounds.most_runs,
            most_bytes=self._bounds.most_bytes,
            families=accepted.families,
            watcher=watch.watcher,
            policy=accepted.on_disconnect,
            key_id=accepted.key_id,
            stream=accepted.stream,
            keep_ms=accepted.keep_ms,
            keep_body=accepted.keep_body,
            background=accepted.background,
        )

    def undone(self, watch: StreamWatch, error: BaseException, new: Acceptance, names: Sequence[str] = ()) -> None:
        """The script gave no answer: nobody will watch what it may have accepted all the same, or joined to a run of
        the Idempotency-Key with these names."""
        watch.close()
        if isinstance(error, Unavailable):
            self._aside(self._insist(lambda: self._withdraw(new, names)))

    def way_in(self, strict: bool) -> Strict:
        """Who accepts it. Refusal for a promise that cannot be kept here."""
        if not strict:
            return self._scripts
        if self._disk is None:
            raise no_promise()
        return self._disk

    async def beat(self, redis: Redis) -> None:
        """Tell the sweeper that this door lives; a silent one's watchers count as gone after a grace time."""
        now = time_ms(await redis.execute("TIME"))
        for number in range(self._partitions):
            await redis.execute("ZADD", f"{prefix(number)}:doors", now, self.name)

    def _too_long(self, new: NewRun) -> bool:
        """Whether the run, whose client is here, is not to be expected to end within its deadline."""
        allowed = new.deadline_ms / 1000 * self._bounds.most_wait
        return allowed > 0 and self._backlog.expected(new.accepted.model, new.accepted.key_id) > allowed

    def _refused(self, new: NewRun, watch: StreamWatch) -> Refusal:
        """The client goes; it still counted for what it is told."""
        refusal = self.overloaded(new)
        watch.close()
        return refusal

    def overloaded(self, new: NewRun) -> Refusal:
        """503 with the time after which it is worth another try, as fast as runs end here now, jittered. Counts it."""
        late = self._too_long(new)
        metrics.inc("headrace_limit_rejections_total", limit="wait" if late else "live")
        stay = self._backlog.expected(new.accepted.model, new.accepted.key_id) if late else self._backlog.whole()
        deadline, share = new.deadline_ms / 1000, self._bounds.most_wait
        seconds = come_back_s(stay, deadline * share if late else math.inf, self._chance.uniform(0.0, 1.0))
        times = (stay, deadline, deadline * share)
        words = _LATE.format(*map(_seconds, times)) if late else _FULL
        return Refusal.of(Code.overloaded, words, retry_after_ms=math.ceil(seconds * 1000))

    async def attach(self, run: str, after: int) -> Watch:
        """See schemas.ports.Door.attach."""
        watcher = self._watcher()
        watch = self.hub.watch(run, watcher, after=after, behind=True, ours=False)
        try:
            seen = await self._scripts.watch(run, watcher, add=True)
        except BaseException as error:
            watch.close()
            if isinstance(error, Unavailable):  # it may have been applied all the same
                self._aside(self._insist(lambda: self._depart(run, watcher)))
            raise
        if seen.state == "gone":
            watch.close()
            raise Refusal.of(Code.not_found, f"There is no run {run}, or it is no longer kept.")
        return watch

    def replay(self, kept: ArchiveRecord, after: int) -> StreamWatch:
        """See schemas.ports.Door.replay."""
        return replay(kept, self._seals, after)

    async def status(self, run: str) -> RunStatus | None:
        """See schemas.ports.Door.status."""
        fields = await self._runs.fields(run)
        return run_status(run, fields) if fields else None

    async def body(self, run: str | ArchiveRecord) -> bytes | None:
        """See schemas.ports.Door.body."""
        if isinstance(run, ArchiveRecord):
            return self._seals.open_body(run.run, run.body) if run.body else None
        sealed = await self._runs.checking_body(run) or await self._runs.kept_body(run)
        return self._seals.open_body(run, sealed) if sealed else None

    async def told(self, run: str | ArchiveRecord) -> AsyncIterator[bytes]:
        """See schemas.ports.Door.told."""
        runs: Runs = Archived(run) if isinstance(run, ArchiveRecord) else self._runs
        name = run.run if isinstance(run, ArchiveRecord) else run
        frames, epoch, sequence = self._seals.of_run(name), 0, 0
        while page := await runs.frames(name, epoch, sequence, _PAGE):
            for one in page:
                if one.kind != ERROR:
                    yield frames.open(one).payload
            epoch, sequence = page[-1].epoch, page[-1].sequence

    async def forget(self, run: str) -> bool:
        """See schemas.ports.Door.forget."""
        return await self._scripts.forget(run)

    async def cancel(self, run: str, by: str) -> bool:
        """See schemas.ports.Door.cancel."""
        return await self._cancel(run, by, unwatched=False) in ("flagged", "cancelled")

    async def _cancel(self, run: str, by: str, *, unwatched: bool) -> str:
        return await cancel_run(self._scripts, self._runs, self._seals, run, by, unwatched=unwatched)

    async def _left(self, run: str, watcher: str, reason: str) -> None:
        """A watcher is gone. While Redis is away this is kept in mind: no sweeper misses a watcher of a living door."""
        try:
            await self._depart(run, watcher)
        except Unavailable:
            self._aside(self._insist(lambda: self._depart(run, watcher)))

    async def _depart(self, run: str, watcher: str) -> None:
        """Drop a watcher. When it was the last one the script sets the run's policy going, so that it holds even when
        this process dies now; `cancel` is carried out at once, `grace` by the sweeper, by any process."""
        seen = await self._scripts.watch(run, watcher, add=False)
        if seen.state not in ("gone", "ended") and not seen.watchers and seen.policy == "cancel":
            await self._cancel(run, "client", unwatched=True)

    async def _withdraw(self, new: Acceptance, names: Sequence[str]) -> None:
        """End a run whose client was told that it was not accepted, whatever its policy. One that somebody else began
        under the same key loses a watcher, no more."""
        joined = await self._runs.of_once(prefix_of(new.run), names)
        for run in {new.run, *joined}:
            fields = await self._runs.fields(run)
            if fields and fields["as"] != new.signed.s:
                await self._depart(run, new.watcher)
            elif (await self._scripts.watch(run, new.watcher, add=False)).state not in ("gone", "ended"):
                await self._cancel(run, "lost", unwatched=True)

    async def _insist(self, call: Callable[[], Awaitable[object]]) -> None:
        """Repeat while Redis is away; every such step may be run twice."""
        while True:
            try:
                await call()
                return
            except Unavailable:
                await self._clock.sleep(self._chance.uniform(*_AWAY))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side.add(task)
        task.add_done_callback(self._aside_done)

    def _aside_done(self, task: asyncio.Task[None]) -> None:
        self._side.discard(task)
        if not task.cancelled() and isinstance(task.exception(), HeadraceError):
            log.info("left to the sweeper", reason=str(task.exception()))


def _seconds(value: float) -> str:
    """As people say it: tenths where they matter."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def run_status(run: str, fields: Any) -> RunStatus:
    """A run's hash as the port's value."""
    text = {name: value.decode("utf8", "replace") for name, value in fields.items() if not _private(name)}
    return RunStatus(
        run=run,
        state=text.get("state", ""),
        outcome=text.get("outcome", ""),
        key_id=text.get("key", ""),
        tenant=text.get("tenant", ""),
        stream=text.get("stream") == "1",
        sequence=int(text.get("seq", 0)),
        epoch=int(text.get("epoch", 0)),
        times={name[2:]: int(value) for name, value in text.items() if name.startswith("t:")},
        detail={name: value for name, value in text.items() if not name.startswith("t:")},
        accepted=_accepted(fields.get("a", b"")),
    )


def _accepted(signed: bytes) -> RequestAccepted | None:
    try:
        event = wire.decode(signed)[1]
    except (DecodeError, UnknownVersion):
        return None
    return event if isinstance(event, RequestAccepted) else None


def _private(name: str) -> bool:
    """Signed or sealed fields that nobody reads as text."""
    return name in ("a", "as") or name.startswith(("v:", "rd:", "rh:", "re:", "rs:"))
