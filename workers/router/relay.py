"""An engine's stream into frames of a run: the first two frames at once, then as many events together as the pace says.

Single-handed: one task reads, translates and stores. While it stores, the engine's bytes wait in a bounded buffer, so a
slow store slows the engine down instead of filling memory. An event is held only until the next frame may go out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from base.clock import Clock
from providers.errors import BadResponse
from providers.ports import EngineStream, UpstreamResponse
from providers.sse import Splitter
from schemas.ports import RunLease
from workers.router.interrupt import Interrupt
from workers.router.rules import flush_gap


class Pace:
    """How often a run may store a frame, learnt from how long storing takes. One per process.

    `least_s` apart normally, up to `most_s` while frames take long to store."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least, self._most = least_s, most_s
        self._flush_s = 0.0

    def note(self, seconds: float) -> None:
        """One frame took this long to store."""
        self._flush_s += (seconds - self._flush_s) / 16

    @property
    def gap(self) -> float:
        """Seconds between two frames of one run, now."""
        return flush_gap(self._least, self._most, self._flush_s)


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
        self._events = 0  # in what is pending
        self._next_flush = 0.0

    async def pump(self, response: UpstreamResponse, interrupt: Interrupt) -> None:
        """Relay until the engine is done. What is left for the last frame stays pending.

        UpstreamFault when the engine fails, Stopped when the run is cancelled, OwnerLost when it is another's."""
        _check_head(response)
        while not self.stream.done:
            piece = await interrupt.wait(self._next(response))
            if piece is not None:
                if not piece:
                    self._take(self._splitter.finish())
                    return
                if self._answered is not None:  # the first piece
                    self._answered()
                    self._answered = None
                self._take(self._splitter.feed(piece))
            if self._pending and not self.stream.done and self._clock.monotonic() >= self._next_flush:
                await self.flush()

    async def flush(self) -> None:
        """Send what is pending as one frame."""
        if not self._pending:
            return
        started = self._clock.monotonic()
        payload, events = self.rest()
        headers = self._headers if self._lease.sequence == 0 else None
        await self._lease.flush(payload, events, headers, said=self.stream.pieces)
        ended = self._clock.monotonic()
        self._pace.note(ended - started)
        if self.first_at is not None:  # engines name the speaker first: the first words must not wait behind that
            self._next_flush = started + self._pace.gap
        self.first_at = self.first_at or ended

    def rest(self) -> tuple[bytes, int]:
        """What is pending, taken out: bytes and number of events."""
        payload, events = b"".join(self._pending), self._events
        self._pending.clear()
        self._events = 0
        return payload, events

    async def _next(self, response: UpstreamResponse) -> bytes | None:
        """The next piece, or None when what is pending has been held long enough."""
        if not self._pending:
            return await response.read()
        return await response.read_within(max(0.0, self._next_flush - self._clock.monotonic()))

    def _take(self, events: list[bytes]) -> None:
        for data in events:
            told = self.stream.take(data)
            if told is not None:
                self._pending.append(told)
                self._events += self.stream.told


def _check_head(response: UpstreamResponse) -> None:
    """An engine that was asked for a stream and answers anything else did not understand."""
    kind = response.headers.get("content-type", "text/event-stream")
    if not kind.lower().startswith("text/event-stream"):
        raise BadResponse("the engine was asked for an event stream and sent something else")
