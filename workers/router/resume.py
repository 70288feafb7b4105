"""An answer that broke off, taken up again: what the client has of it is read from the run's own stream, then judged.

Whoever broke it off (the engine, or the router that had the run before), the way is one: read, judge, and either call
an endpoint that can continue, or end what lacks only its end, or leave it broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson

from base import logs
from providers import responses_sent
from providers.dialects import chat_of
from providers.errors import Untranslatable
from providers.openai_continue import Told, closing, left_of, read
from schemas.errors import DecodeError, Failure
from schemas.events import Usage
from schemas.frames import END, ERROR, encode_failure
from schemas.ports import RunLease
from schemas.records import SPEAKS_CHAT, EndpointRecord
from schemas.routes import RESPONSES
from workers.router.attempt import Work
from workers.router.continuation import refusal

log = logs.room("router")

_GAP = "its stream does not hold all that was sent"


async def take_up(work: Work, endpoints: Sequence[EndpointRecord], most: int) -> str:
    """Prepare `work` to go on; "" or why it may not. most: continuations that a run may have."""
    unable = frozenset(one.endpoint for one in endpoints if not one.continues or SPEAKS_CHAT not in one.speaks)
    if not work.lease.accepted.stream or len(unable) == len(endpoints):
        return "no endpoint of its pool continues answers"
    if work.continued >= most:
        return f"it was continued {work.continued} times"
    told = work.sent or await heard(work.lease)
    reason = _refusal(work, told)
    if not reason:
        work.told, work.sent, work.unable = told, None, unable
        work.usage = usage_of_sent(work.lease, told)
        work.continued += 1
    return reason


def _refusal(work: Work, told: Told) -> str:
    try:
        return told.odd or refusal(work.lease.accepted.route, chat_of(work.question), told)
    except Untranslatable as reason:
        return str(reason)


async def heard(lease: RunLease) -> Told:
    """What the client has of the answer; an odd one where the run's stream does not say. OwnerLost."""
    try:
        sent = await lease.delivered()
    except DecodeError as error:
        return Told(odd=str(error))
    if sent is None:
        return Told(odd=_GAP)
    return responses_sent.read(sent) if lease.accepted.route == RESPONSES else read(sent)


def usage_of_sent(lease: RunLease, told: Told) -> Usage:
    """What was sent is worth: the engine's count where the client has it, else each event with text a token, else
    every event but three: who speaks, why it ended and how much it was."""
    if told.usage is not None:
        return msgspec.structs.replace(told.usage, estimated=True)
    pieces = told.pieces if told.head or told.pieces else max(lease.sequence - 3, 0)
    return Usage(prompt_tokens=lease.accepted.prompt_tokens, completion_tokens=pieces, estimated=True)


async def end_if_whole(work: Work, now: float, now_ms: int) -> bool:
    """End a taken-up run that lacks nothing but its end; whether it was such a one. now_ms: since the epoch.
    OwnerLost."""
    told = work.told
    if told is None or not (told.finish_reason or left_of(orjson.loads(chat_of(work.question)), told) == 0):
        return False
    work.first_at = work.first_at or now
    usage = usage_of_sent(work.lease, told)
    if told.events is not None:
        payload, events = responses_sent.closing(told, usage, now_ms)
    else:
        payload, events = closing(told, usage if work.show_usage else None)
    fact = work.completed(usage, told.finish_reason or "length", work.lease.sequence + events, now)
    await work.lease.end(END, payload, events, fact)
    return True


async def last_words(lease: RunLease, failure: Failure) -> tuple[str, bytes]:
    """Kind and payload of the frame that ends a failed run. A response that has begun ends with an event of its own
    kind, which holds all that was said; clients take any other end for a broken connection. OwnerLost."""
    if lease.accepted.route == RESPONSES and lease.accepted.stream and lease.sequence:
        try:
            sent = await lease.delivered()
            if sent is not None:
                return END, responses_sent.failed(sent, lease.sequence, failure)
        except (DecodeError, LookupError, TypeError, ValueError) as error:
            log.error("what was sent of a response cannot be read", run=lease.run, reason=type(error).__name__)
    return ERROR, encode_failure(failure)
