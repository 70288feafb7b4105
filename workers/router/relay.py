"""An engine's stream into frames of a run: the first two frames at once, then as many events together as the pace says.

No task wakes for an event: the engine's bytes are cut, translated and given away in the turn of the loop in
which they arrive. One frame is under way at a time; what comes meanwhile, or before the next frame may go out, is held,
and past `_HELD` bytes the engine is read no further, so a slow store slows it down instead of filling memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from base.clock import Clock
from providers.errors import BadResponse
from providers.ports import EngineStream, UpstreamResponse
from providers.sse import Splitter
from schemas.ports import RunLease
from workers.router.interrupt import Interrupt
from workers.router.rules import frame_gap

#: A frame under way: payload, events, how many events said something so far, when it was begun.
UnderWay = tuple[bytes, int, int, float]
_HELD = 64 * 1024  # bytes of events that wait for the store
_ROUND = 1.25  # a round of reading is so much longer than the gap between frames, so that each finds the next one due
_WINDOW_S = 0.25  # in which frames are counted


class Pace:
    """How often a run may store a frame, learnt from how long storing takes and from how many are stored. One per
    process. A gap is `least_s` normally, and a round of reading never more than `most_s`."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least, self._most = least_s, most_s / _ROUND
        self._flush_s = self._since = 0.0
        self._frames = 0
        self.gap = least_s  # seconds between two frames of one run, now

    def note(self, seconds: float, now: float) -> None:
        """One frame took this long to store."""
        self._flush_s += (seconds - self._flush_s) / 16
        self._frames += 1
        passed = now - self._since
        if passed >= _WINDOW_S:
            self.gap = frame_gap(self._least, self._most, self._flush_s, self._frames / passed, self.gap)
            self._frames, self._since = 0, now

    def every(self) -> float:
        """Seconds apart at which an engine that is faster than that is read; 0 = as it comes."""
        return self.gap * _ROUND if self.gap <= self._most else 0.0


class Relay:
    """One stream of one attempt. Nothing of it is sent before `pump`; what `pump` could not send stays `pending`.

    answered: told when the first piece of the answer is here."""

    def __init__(
        self,
        lease: RunLease,
        stream: EngineStream,
        headers: Mapping[str, str],
        pace: Pace,
        clock: Clock,
        answered: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.first_at: float | None = None
        self._lease, self._headers, self._pace, self._clock = lease, headers, pace, clock
        self._answered: Callable[[], None] | None = answered
        self._splitter = Splitter()
        self._pending: list[bytes] = []
        self._events = self._held = 0  # in what is pending: events, bytes
        self._next_flush = 0.0
        self._flowing = False  # while the engine is read
        self._under_way: UnderWay | None = None
        self._insisting: asyncio.Task[None] | None = None
        self._error: Exception | None = None  # why it was not stored
        self._landed: asyncio.Future[None] | None = None  # somebody waits for it
        self._interrupt: Interrupt | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def pump(self, response: UpstreamResponse, interrupt: Interrupt) -> None:
        """Relay until the engine is done. What is left for the last frame stays pending.

        UpstreamFault when the engine fails, Stopped when the run is cancelled: a frame may be under way then, see
        `settled`. OwnerLost when the run is another's."""
        _check_head(response)
        self._interrupt, self._flowing = interrupt, True
        try:
            while not self.stream.done:
                if await interrupt.wait(response.pour(self._arrived, self._pace.every)):
                    self._take(self._splitter.finish())
                    break
                if not self.stream.done:
                    await self.flush()
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            self._flowing = False
            self._disarm()
        await self.settled()

    async def flush(self) -> None:
        """Send what is pending as one frame, behind the one under way."""
        await self.settled()
        if not self._pending:
            return
        started = self._clock.monotonic()
        payload, events = self.rest()
        await self._lease.flush(payload, events, self._first_headers(), said=self.stream.pieces)
        self._note(started)

    def _first_headers(self) -> Mapping[str, str] | None:
        """Of a frame that is to be stored: only a run's first one has those of the answer."""
        return None if self._lease.sequence else self._headers

    def rest(self) -> tuple[bytes, int]:
        """What is pending, taken out: bytes and number of events."""
        payload, events = b"".join(self._pending), self._events
        self._pending.clear()
        self._events = self._held = 0
        return payload, events

    def _arrived(self, piece: bytes) -> bool:
        """A piece of the engine's answer; whether the next one may come. UpstreamFault."""
        if self._answered is not None:  # the first piece
            self._answered()
            self._answered = None
        self._take(self._splitter.feed(piece))
        if self.stream.done:
            return False
        self._go()
        return self._held < _HELD

    def _take(self, events: list[bytes]) -> None:
        for data in events:
            told = self.stream.take(data)
            if told is not None:
                self._pending.append(told)
                self._events += self.stream.told
                self._held += len(told)

    def _go(self) -> None:
        """Send what is pending, now or as soon as the next frame may go out."""
        if not self._pending or self._under_way is not None or self._timer is not None:
            return
        now = self._clock.monotonic()
        if now < self._next_flush:
            self._timer = self._loop.call_later(self._next_flush - now, self._due)
            return
        payload, events = self.rest()
        said = self.stream.pieces
        self._under_way = (payload, events, said, now)
        self._lease.offer(payload, events, self._told, self._first_headers(), said=said)

    def _due(self) -> None:
        self._timer = None
        if self._flowing and not self.stream.done:
            self._go()

    def _told(self, stored: bool) -> None:
        """What became of the frame under way."""
        sent = self._under_way
        if sent is None:
            return  # nobody waits for it any more
        if not stored:
            self._insisting = self._loop.create_task(self._insist(sent), name="frame again")
            return
        self._under_way = None
        self._note(sent[3])
        if self._landed is not None:
            self._wake()
        elif self._pending and self._flowing and not self.stream.done:
            self._go()

    async def _insist(self, sent: UnderWay) -> None:
        """The store did not say that it has the frame: until it does, or says why not."""
        payload, events, said, _ = sent
        try:
            await self._lease.flush(payload, events, self._first_headers(), said=said)
        except Exception as error:
            self._error = error
            if self._interrupt is not None:
                self._interrupt.fail(error)
            self._wake()
        else:
            self._told(True)

    async def settled(self) -> None:
        """Until no frame is under way. What the store said against it is raised."""
        while self._under_way is not None:
            if self._error is not None:
                raise self._error
            self._landed = self._loop.create_future()
            try:
                await self._landed
            except asyncio.CancelledError:
                self._abandon()
                raise
            finally:
                self._landed = None

    def _wake(self) -> None:
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    def _note(self, started: float) -> None:
        """A frame that was begun then is stored now."""
        ended = self._clock.monotonic()
        self._pace.note(ended - started, ended)
        if self.first_at is not None:  # engines name the speaker first: the first words must not wait behind that
            self._next_flush = started + self._pace.gap
        self.first_at = self.first_at or ended

    def _abandon(self) -> None:
        """This process lets go of the run: what is under way may arrive or not."""
        self._under_way = None
        if self._insisting is not None:
            self._insisting.cancel()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _check_head(response: UpstreamResponse) -> None:
    """An engine that was asked for a stream and answers anything else did not understand."""
    kind = response.headers.get("content-type", "text/event-stream")
    if not kind.lower().startswith("text/event-stream"):
        raise BadResponse("the engine was asked for an event stream and sent something else")
