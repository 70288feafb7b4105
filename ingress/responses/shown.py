"""A response that is there already: its object, what was asked, whether it may be cancelled. Live, ended or kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from ingress.parts import Parts
from ingress.presence import sign_off
from ingress.reading import Found, Look, find
from ingress.replay import blocks_of, events_of
from ingress.responses.resource import Response, failed, last_events, standing, unfinished
from schemas.errors import Code, Failure, HeadraceError, Refusal, Unavailable
from schemas.frames import ERROR, Frame, decode_failure
from schemas.ports import RunStatus
from schemas.records import ArchiveRecord, KeyRecord
from schemas.response_events import Told
from schemas.responses import run_of
from schemas.routes import RESPONSES

_LAST = 2**62  # behind every event: only how the run ended is told
_FRAME_S = 10.0  # the last frame of a run that has ended, or is about to


async def response_of(parts: Parts, response: str, key: KeyRecord, *, deleted: bool = False) -> Found:
    """The run behind a public id. Refusal(not_found) for what is no response of the key's tenant, or, unless `deleted`,
    is deleted."""
    found = await find(parts, run_of(response), key, deleted=deleted)
    if found is None or not is_response(found):
        raise no_response()
    return found


def no_response() -> Refusal:
    """There is none to show."""
    words = "There is no response with this id, or it is no longer kept."
    return Refusal.of(Code.not_found, words, param="response_id")


def is_response(found: Found) -> bool:
    """Whether it came by this route: every run has a name that could be a response's."""
    said = found if isinstance(found, ArchiveRecord) else found.accepted
    return said is not None and said.route == RESPONSES


def is_background(found: Found) -> bool:
    """Whether it was asked for with `background`."""
    said = found if isinstance(found, ArchiveRecord) else found.accepted
    return said is not None and said.background


def created_ms(found: Found) -> int:
    """When it was accepted."""
    return found.accepted_ms if isinstance(found, ArchiveRecord) else found.times.get("accepted", 0)


def ended(found: Found) -> bool:
    return isinstance(found, ArchiveRecord) or found.state == "ended"


def failed_at_once(found: Found) -> bool:
    """Whether it ended with an error before anything was said. That is one event of the run and two of its reader."""
    return isinstance(found, RunStatus) and ended(found) and found.sequence == 1


async def asked_in(parts: Parts, found: Found) -> dict[str, Any]:
    """The request's body, {} when it is no longer there."""
    body = await parts.door.body(found if isinstance(found, ArchiveRecord) else found.run)
    if body is None and isinstance(found, RunStatus) and found.state == "ended" and parts.archive is not None:
        kept = await parts.archive.find(found.tenant, found.run, parts.clock.now_ms())
        body = await parts.door.body(kept) if kept else None
    return orjson.loads(body) if body else {}


async def object_of(parts: Parts, found: Found) -> Response:
    """The response as it stands. Unavailable when its end cannot be read now."""
    if isinstance(found, RunStatus) and found.state != "ended":
        return await so_far(parts, found, "in_progress" if found.state == "running" else "queued")
    frame = await ending_of(parts, found)
    if frame.kind == ERROR:
        return await broken(parts, found, decode_failure(frame.payload))
    return answered(frame, found.stream)


async def so_far(parts: Parts, found: Found, status: str, *, ending: bool = False) -> Response:
    """The object with what was said until now; only what goes out as a stream is there before its end. ending: nothing
    more will come."""
    told = Told()
    if found.stream:
        async for events in parts.door.told(found if isinstance(found, ArchiveRecord) else found.run):
            told.hear(events)
    begun = told.response or unfinished(found.run, created_ms(found), await _asked_or_model(parts, found), status)
    return standing(begun, status, told.output(broken=ending))


async def _asked_or_model(parts: Parts, found: Found) -> dict[str, Any]:
    """What was asked; where that is no longer kept, of whom."""
    asked = await asked_in(parts, found)
    accepted = found.accepted if isinstance(found, RunStatus) else None
    return asked or ({"model": accepted.model} if accepted else {})


async def broken(parts: Parts, found: Found, failure: Failure) -> Response:
    """The object of a run that ended without a whole answer, with what was said until then."""
    return failed(await so_far(parts, found, "failed", ending=True), failure)


def answered(frame: Frame, stream: bool) -> Response:
    """The object in the last frame of an answer."""
    said: Any = orjson.loads(events_of(frame, stream)[-1][1])
    response: Response = said["response"] if stream else said
    return response


async def ending_of(parts: Parts, found: Found) -> Frame:
    """The run's last frame, waited for a moment. Unavailable."""
    if isinstance(found, ArchiveRecord):
        watch = parts.door.replay(found, _LAST)
    else:
        watch = await parts.door.attach(found.run, _LAST)
    try:
        frame = await watch.next(_FRAME_S)
    finally:
        await sign_off(watch)
        watch.close()
    if frame is None or not frame.terminal:
        raise Unavailable(f"the end of run {found.run} cannot be read")
    return frame


async def look_behind(parts: Parts, found: Found, after: int) -> Look:
    """How the events behind the `after`-th go out: byte for byte as at first; a failure that no engine told is an event
    too."""

    asked = await asked_in(parts, found)

    async def failing(failure: Failure, number: int) -> list[bytes]:
        try:
            response = await broken(parts, found, failure)
        except HeadraceError:  # the store is away: then without what was said
            response = failed(unfinished(found.run, created_ms(found), asked, "failed"), failure)
        return last_events(number, response)

    async def new(frame: Frame) -> Iterable[bytes]:
        if frame.kind == ERROR:
            told = await failing(decode_failure(frame.payload), frame.sequence - 1)
            return [event for number, event in enumerate(told, frame.sequence) if number > after]
        return [block for number, block in blocks_of(frame) if number > after]

    async def failure(failure: Failure, number: int) -> bytes:
        return b"".join(await failing(failure, number))

    return Look(new, failure)
