"""An answer that broke off, taken up again: what the client has of it is read from the run's own stream, then judged.

Whoever broke it off (the engine, or the router that had the run before), the way is one: read, judge, and either call
an endpoint that can continue, or end what lacks only its end, or leave it broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from base import logs
from providers.openai_continue import Told, closing, left_of, read
from schemas.errors import DecodeError
from schemas.events import Usage
from schemas.frames import END
from schemas.records import EndpointRecord
from workers.router.attempt import Work
from workers.router.continuation import refusal

log = logs.room("router")


async def take_up(work: Work, endpoints: Sequence[EndpointRecord], most: int) -> str:
    """Prepare `work` to go on; "" or why it may not. most: continuations that a run may have."""
    unable = frozenset(one.endpoint for one in endpoints if not one.continues)
    if not work.lease.accepted.stream or len(unable) == len(endpoints):
        return "no endpoint of its pool continues answers"
    if work.continued >= most:
        return f"it was continued {work.continued} times"
    try:
        sent = await work.lease.delivered()
    except DecodeError as error:
        return str(error)
    if sent is None:
        return "its stream does not hold all that was sent"
    told = read(sent)
    reason = refusal(work.lease.accepted.route, work.body, told)
    if not reason:
        work.told, work.unable = told, unable
        work.usage = _estimate(work, told)
        work.continued += 1
    return reason


async def end_if_whole(work: Work, now: float) -> bool:
    """End a taken-up run that lacks nothing but its end; whether it was such a one. OwnerLost."""
    told = work.told
    if told is None or not (told.finish_reason or left_of(orjson.loads(work.body), told) == 0):
        return False
    work.first_at = work.first_at or now
    usage = _estimate(work, told)
    payload, events = closing(told, usage if work.show_usage else None)
    fact = work.completed(usage, told.finish_reason or "length", work.lease.sequence + events, now)
    await work.lease.end(END, payload, events, fact)
    return True


def _estimate(work: Work, told: Told) -> Usage:
    """What was sent is worth, by our own count."""
    return Usage(prompt_tokens=work.lease.accepted.prompt_tokens, completion_tokens=told.pieces, estimated=True)
