"""Watching runs: one hub per process turns pushes and stream reads into frames in order, none missing, none twice.

A push that fits is handed on as it is. On a gap, on silence, after a reconnection, or when a slow reader has fallen
behind, the watch reads the reply stream from its last sequence instead; the stream is the truth. Memory per watch is
bounded: past `_BUFFER` bytes what is queued is dropped and read again at the reader's own pace.

A server that lost its last writes (a power cut, a failover) may show a run as it was before frames that a reader has
had, or not at all, and may let another owner begin it anew under the same epoch. A reader must never be given the end
of one answer after the beginning of another, so whatever does not continue what it was given ends it with an error:
frames of another owner under the same epoch, a run that stands below the reader's place, a run that is gone.

Silence is looked into by the hub, for all quiet runs together: it asks where they stand and sends only those to the
stream that are elsewhere than their reader. So ten thousand idle readers cost a few calls every `_SILENCE_S`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from base import logs, metrics
from base.clock import Clock
from runtime import faults
from runtime.backlog import Stay
from runtime.names import MANY
from runtime.runs import Runs
from runtime.seals import Seals
from schemas.errors import Code, HeadraceError, Refusal, Unavailable
from schemas.frames import DATA, OWNER, Frame, StoredFrame
from schemas.ports import Direct

log = logs.room("runtime")

_BUFFER = 64 * 1024  # bytes queued for one reader; ten thousand slow ones are then 640 MB at the very worst
_SILENCE_S = 3.0  # how often the runs are asked that have not been heard of since the last time
_RUNS = 250  # asked about in one go: a millisecond or less of this process and of the server
_PAGE = 64  # frames per catch-up read
_AWAY_S = 0.1  # between two tries while Redis is away

Leave = Callable[[str, str, str], Awaitable[None]]


class StreamWatch:
    """Implements schemas.ports.Watch."""

    __slots__ = (
        "_after",
        "_behind",
        "_bell",
        "_closed",
        "_epoch",
        "_finished",
        "_hub",
        "_leaving",
        "_left",
        "_loop",
        "_ours",
        "_owner",
        "_queue",
        "_queued",
        "_rung",
        "_sequence",
        "direct",
        "replayed",
        "run",
        "seals",
        "stay",
        "watcher",
    )

    def __init__(self, hub: Hub, run: str, watcher: str, after: int, behind: bool, ours: bool) -> None:
        self.run, self.watcher = run, watcher
        self.replayed = False
        self.direct: Direct | None = None
        self.stay: Stay | None = None  # of the client who waits for this run's answer
        self._hub, self.seals = hub, hub.seals.of_run(run)
        self._queue: deque[StoredFrame] = deque()
        self._queued = 0
        self._epoch, self._sequence = 0, 0  # the place of the last frame handed out
        self._owner = ""  # who wrote that frame
        self._after = after  # events the reader has already
        self._behind, self._ours = behind, ours
        self._finished = self._left = self._closed = False
        self._leaving: asyncio.Future[None] | None = None
        self._rung = False  # whether anything was heard since the last wait began
        self._bell: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def stands(self, place: tuple[int, int] | None) -> None:
        """Where its run is. One that is further, fell back or is gone is read; a new owner alone is no new frame."""
        epoch, sequence = self._tail()
        if not self._behind and (place is None or place[1] != sequence or place[0] < epoch):
            self.miss()

    def offer(self, frame: StoredFrame) -> None:
        """A push came. Anything that doesn't continue what is queued sends the reader to the stream."""
        if self.direct is not None and self._hand_over(frame):
            return
        self._ring()
        if self._behind:
            return
        epoch, sequence = self._tail() if self._queue else (self._epoch, self._sequence)
        if frame.sequence - frame.events == sequence and frame.epoch >= epoch:
            self._queue.append(frame)
            self._queued += len(frame.payload)
            if self._queued > _BUFFER:
                self.miss()
        elif frame.sequence > sequence or frame.epoch > epoch:
            self.miss()
        else:
            self._behind = True  # pushed twice, or the run fell back: the stream tells

    def _hand_over(self, frame: StoredFrame) -> bool:
        """Give it to a reader that takes it in this turn of the loop. Whatever is not plain goes the way of all."""
        if self._behind or self._queue or self._finished or frame.kind != DATA:
            return False
        if frame.sequence - frame.events != self._sequence or frame.epoch < self._epoch:
            return False
        if self.direct is None or not self.direct.ready():
            return False
        try:
            opened = self._open(frame)
        except HeadraceError:
            return False  # whoever asks for the next frame is told
        if opened is not None:
            self.direct.put(opened)
        return True

    def miss(self) -> None:
        """Something may be missing: forget what is queued and read the stream."""
        metrics.inc("headrace_gaps_total")
        self._queue.clear()
        self._queued = 0
        self._behind = True
        self._ring()

    def _ring(self) -> None:
        self._rung = True
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def _tail(self) -> tuple[int, int]:
        last = self._queue[-1] if self._queue else None
        return (last.epoch, last.sequence) if last else (self._epoch, self._sequence)

    async def next(self, timeout: float) -> Frame | None:
        """See schemas.ports.Watch.next."""
        until = self._loop.time() + timeout
        while not self._finished:
            if self._behind and not self._queue:
                await self._catch_up(until)
                if self._behind:  # more to read, now or when Redis is back: nothing will ring for it
                    continue
            if self._queue:
                frame = self._pop()
                if frame is not None:
                    return frame
                continue
            left = until - self._loop.time()
            if left <= 0:
                return None
            await self._wait(left)
        if self._left:  # whoever still asks in a loop must not find None for ever: nothing else would get its turn
            raise Refusal.of(Code.cancelled, "This reader has left.")
        return None

    def _pop(self) -> Frame | None:
        """The next queued frame, opened; None for one the reader has already."""
        stored = self._queue.popleft()
        self._queued -= len(stored.payload)
        frame = self._open(stored)
        if frame is not None and frame.kind != DATA:
            self._finished = True
            if self.stay is not None:
                self.stay.served(frame)
            self.close()
        return frame

    def _open(self, stored: StoredFrame) -> Frame | None:
        """The frame, and the reader's place is behind it. Refusal, DecodeError: nothing has changed."""
        first = stored.sequence - stored.events + 1
        if stored.epoch > self._epoch and first <= self._sequence:
            raise _started_again()
        frame = self.seals.open(stored)
        owner = frame.headers.get(OWNER, "")
        if owner != self._owner and stored.epoch == self._epoch and self._is_other(owner):
            raise _started_again()
        self._epoch, self._sequence, self._owner = stored.epoch, stored.sequence, owner or self._owner
        if stored.sequence <= self._after and stored.kind == DATA:
            return None  # the last frame is told to whoever asks for what lies behind it
        faults.hit("ingress", "P2")
        return frame

    async def _wait(self, seconds: float) -> None:
        """Until something arrives, or the time is over."""
        self._rung, self._bell = False, self._loop.create_future()
        timer = self._loop.call_later(seconds, self._ring)
        try:
            await self._bell
        finally:
            timer.cancel()

    async def _catch_up(self, until: float) -> None:
        """Read one page from the last place; caught up when it is empty, the run is still there, and no push came
        while it was read (its frame may be younger than the page)."""
        self._rung = False
        try:
            page = await self._hub.runs.frames(self.run, self._epoch, self._sequence, _PAGE)
            if not page:
                self._check(await self._hub.runs.fields(self.run))
        except Unavailable:
            if self._loop.time() >= until:
                raise
            await self._wait(_AWAY_S)
            return
        if not page:
            self._behind = self._rung
            return
        self._queue.extend(page)
        self._queued += sum(len(frame.payload) for frame in page)

    def _check(self, fields: Mapping[str, bytes]) -> None:
        """No frame lies behind this reader's place: the run must still stand there. Refusal when it does not."""
        if not fields:
            raise self._gone()
        if "deleted" in fields:
            raise Refusal.of(Code.not_found, "This answer was deleted.")
        place = int(fields["epoch"]), int(fields["seq"])
        same = place[0] == self._epoch and self._sequence > 0
        other = same and self._is_other(fields.get("owner", b"").decode().rpartition(":")[2])
        if other or place[0] < self._epoch or place[1] < self._sequence:
            raise _started_again()

    def _is_other(self, owner: str) -> bool:
        """Whether this is another owner than that of the frames so far; "" = unknown (an older version wrote it)."""
        return bool(owner and self._owner and owner != self._owner)

    def _gone(self) -> Refusal:
        """The run is not there. One whose client asked for its answer is watched to its end, so it was lost."""
        if not self._ours:
            return Refusal.of(Code.not_found, f"The stream of {self.run} is no longer kept.")
        if self._sequence:
            return Refusal.of(Code.upstream_interrupted, "The store lost this answer; it ends here.")
        words = "The store lost this request before it was answered. Send it again."
        return Refusal.of(Code.store_unavailable, words)

    async def leave(self, reason: str = "left") -> None:
        """See schemas.ports.Watch.leave. Whoever is cut off while it waits has left all the same."""
        if not self._finished:
            self._finished = self._left = True
            self._ring()
            self.close()
            self._leaving = asyncio.ensure_future(self._hub.leave(self.run, self.watcher, reason))
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    def close(self) -> None:
        """See schemas.ports.Watch.close."""
        if self._closed:
            return
        self._closed = True
        if self.stay is not None:
            self.stay.left()
        self._hub.drop(self)


def _started_again() -> Refusal:
    return Refusal.of(Code.upstream_interrupted, "The answer was started again elsewhere; this stream ends here.")


class Hub:
    """All watches of one process. `leave` is what happens when a watcher's client is gone. clock: None for streams that
    do not grow any more."""

    def __init__(self, runs: Runs, seals: Seals, leave: Leave, clock: Clock | None = None) -> None:
        self.runs, self.seals, self.leave = runs, seals, leave
        self._clock = clock
        self._watches: dict[str, set[StreamWatch]] = {}
        self._heard: set[str] = set()  # runs, since the last look
        self._stood: dict[str, tuple[int, int]] = {}  # where the silent ones stood at the last look
        self._listener: asyncio.Task[None] | None = None

    def watch(self, run: str, watcher: str, *, after: int = 0, behind: bool = False, ours: bool = True) -> StreamWatch:
        """A new watch, hearing pushes from now on. behind: it begins by reading. ours: of a request that waits for its
        answer; False for a reader who comes to see what is there."""
        watch = StreamWatch(self, run, watcher, after, behind, ours)
        self._watches.setdefault(run, set()).add(watch)
        if self._clock is not None and (self._listener is None or self._listener.done()):
            self._listener = asyncio.create_task(self._listen(self._clock), name="silence of runs")
        return watch

    def drop(self, watch: StreamWatch) -> None:
        group = self._watches.get(watch.run)
        if group is not None:
            group.discard(watch)
            if not group:
                del self._watches[watch.run]

    def hear(self, message: bytes) -> None:
        """A push. One frame: `run epoch sequence events kind length-of-headers\\n` headers payload. Many: the line
        MANY, then in one line the heads of all, each with its payload's length too, then the bytes of all."""
        if message.startswith(MANY):
            self._hear_many(message)
            return
        head, _, rest = message.partition(b"\n")
        run, epoch, sequence, events, kind, size = head.decode().split(" ")
        cut = int(size)
        self._tell(run, int(epoch), int(sequence), int(events), kind, rest[:cut], rest[cut:])

    def _hear_many(self, message: bytes) -> None:
        end = message.index(b"\n", len(MANY))
        words, at = iter(message[len(MANY) : end].decode().split(" ")), end + 1
        for run, epoch, sequence, events, kind, size, length in zip(*[words] * 7, strict=True):
            cut = at + int(size)
            end = cut + int(length)
            self._tell(run, int(epoch), int(sequence), int(events), kind, message[at:cut], message[cut:end])
            at = end

    def _tell(
        self, run: str, epoch: int, sequence: int, events: int, kind: str, headers: bytes, payload: bytes
    ) -> None:
        """A frame for whoever watches its run."""
        watches = self._watches.get(run)
        if not watches:
            return
        self._heard.add(run)
        frame = StoredFrame(epoch=epoch, sequence=sequence, kind=kind, events=events, payload=payload, headers=headers)
        for watch in tuple(watches):
            watch.offer(frame)

    def missed(self) -> None:
        """Pushes were missed: every watch reads its stream."""
        for group in tuple(self._watches.values()):
            for watch in tuple(group):
                watch.miss()

    async def _listen(self, clock: Clock) -> None:
        """As long as anybody watches."""
        while self._watches:
            await clock.sleep(_SILENCE_S)
            try:
                await self.look()
            except HeadraceError:
                pass  # Redis is away: what it has missed is read when it is back
            except Exception:
                log.exception("looking at silent runs failed")  # nobody else would look for those who watch now

    async def look(self) -> None:
        """Ask where the runs stand of which nothing was heard since the last look. Unavailable.

        A run that stands where it stood at the last look needs no look at its readers: they were told then."""
        silent = [run for run in self._watches if run not in self._heard]
        stood, self._stood = self._stood, {}
        self._heard.clear()
        for start in range(0, len(silent), _RUNS):
            for run, place in (await self.runs.places(silent[start : start + _RUNS])).items():
                if place is None or place != stood.get(run):
                    for watch in self._watches.get(run, ()):
                        watch.stands(place)
                if place is not None:
                    self._stood[run] = place

    @property
    def live(self) -> int:
        """Watches open now."""
        return sum(len(group) for group in self._watches.values())
