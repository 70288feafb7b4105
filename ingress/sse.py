"""From a run's frames to its answer: the first frame decides the status, silence is bridged, an end is an end.

nothing yet           no byte is sent, so everything can still fail with a proper status
commit_after passed   200 and a comment; from then on a failure is the error event
silence               a comment every keep_alive seconds, once the answer has begun; an outage of Redis is silence then
the last frame        its bytes and the end of the body together: after [DONE] nothing is waited for
"""

from __future__ import annotations

import msgspec

from ingress.exchange import Exchange
from ingress.headers import frame_headers
from schemas.errors import Code, Failure, Refusal, Unavailable
from schemas.frames import ERROR, Frame, decode_failure
from schemas.ports import Watch

#: Seconds past a run's deadline after which the door speaks for itself: the sweeper should have ended the run by then.
OVERDUE_S = 5.0
#: Not to be sent again by itself: nobody knows here what was done and will be billed.
_OVERDUE = Failure(
    code=Code.deadline_exceeded.value, message="The request was not answered within its deadline.", should_retry=False
)


class Pace(msgspec.Struct, frozen=True):
    """How long to wait for the next frame, in seconds. give_up: measured from the request's start."""

    keep_alive: float
    commit_after: float
    give_up: float

    def patience(self, begun: bool, elapsed: float, quiet: float) -> float:
        """Until something has to be sent or given up. quiet: since something was sent."""
        wait = self.keep_alive - quiet if begun else self.commit_after - elapsed
        return max(0.0, min(wait, self.give_up - elapsed))


async def relay(watch: Watch, out: Exchange, pace: Pace) -> None:
    """Stream the run to the client until its last frame. Refusal with the run's failure, or deadline_exceeded when
    nobody ended it; Unavailable. Most frames pass by: they go to the client as they arrive."""
    watch.direct = out
    try:
        await _relay(watch, out, pace)
    finally:
        watch.direct = None


async def _relay(watch: Watch, out: Exchange, pace: Pace) -> None:
    while True:
        frame = await _next(watch, out, pace)
        if frame is None:
            await _bridge(out, pace)
            continue
        if frame.kind == ERROR:
            raise RunFailed(frame)
        if not out.begun:
            await out.begin(frame.headers)
        last, out.events = frame.terminal, frame.sequence
        await out.piece(frame.payload, last)
        if last:
            return


async def _next(watch: Watch, out: Exchange, pace: Pace) -> Frame | None:
    """The next frame, None for silence. An answer that has begun outlasts an outage of Redis until its deadline, for
    the run's owner holds its next frame meanwhile and goes on."""
    try:
        return await watch.next(pace.patience(out.begun, out.elapsed(), out.quiet()))
    except Unavailable:
        if not out.begun or out.elapsed() >= pace.give_up:
            raise
        return None


async def collect(watch: Watch, out: Exchange, pace: Pace) -> None:
    """Answer a unary request when its run has ended. Raises as `relay` does; nothing is sent before the end."""
    parts: list[bytes] = []
    while True:
        frame = await watch.next(max(0.0, pace.give_up - out.elapsed()))
        if frame is None:
            _give_up(out, pace)
            continue
        if frame.kind == ERROR:
            raise RunFailed(frame)
        parts.append(frame.payload)
        if frame.terminal:
            await out.answer(200, b"".join(parts), frame_headers(frame.headers))
            return


class RunFailed(Refusal):
    """The run ended with an error; `headers` came with it."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(decode_failure(frame.payload))
        self.headers = frame.headers


async def _bridge(out: Exchange, pace: Pace) -> None:
    """Silence: begin the answer if that is due, and show a sign of life."""
    _give_up(out, pace)
    if not out.begun:
        if out.elapsed() < pace.commit_after:
            return
        await out.begin({})
    elif out.quiet() < pace.keep_alive:
        return
    await out.comment()


def _give_up(out: Exchange, pace: Pace) -> None:
    if out.elapsed() >= pace.give_up:
        raise Refusal(_OVERDUE)
