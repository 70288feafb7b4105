"""GET /v1/streams/{run}?after=N: read a run again from any event, live or ended, at any ingress.

Each event comes with `id: <number>`, counted as the client of the run counted them; the browser's Last-Event-ID works
in place of `after`. Only for the key that started the run, or another of its tenant; for everybody else there is no
such run. Silence is bridged by a comment line that is not a block of its own: after an `id:` line, readers exist that
take a lone comment block for an empty event and fail on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message

from base.health import Health
from base.ids import is_run_id
from ingress.credentials import allow
from ingress.documents.openapi import EVENT, EVENTS, Part, answer, fails, operation
from ingress.errors import error_body, failure_of
from ingress.parts import Parts
from ingress.presence import sign_off
from ingress.replay import events_of, numbered
from ingress.sse import OVERDUE_S
from schemas.errors import Code, HeadraceError, Refusal, Unavailable
from schemas.frames import Frame
from schemas.ports import RunStatus, Watch
from schemas.records import ArchiveRecord, KeyRecord

_WAIT_S = 60.0  # one wait for a frame; the response pings by itself
_EVENTS = 'id: 4\ndata: {"choices":[{"index":0,"delta":{"content":"Hello!"}}]}\n\nid: 5\ndata: [DONE]\n\n'
_LAST: Part = {
    "name": "last-event-id",
    "in": "header",
    "description": "As browsers send it; `after` goes before it. Anything but digits is ignored.",
    "schema": {"type": "string"},
    "example": "3",
}
_READ = operation(
    {"parameters": [_LAST]},
    answer(_EVENTS, "The events behind `after`, each with its number.", schema=EVENT, media=EVENTS),
    fails(Code.not_found, Code.draining),
)


class _Ping(ServerSentEvent):
    """A comment line without a blank line behind it."""

    def encode(self) -> bytes:
        return b": keep-alive\n"


Run = Annotated[
    str, Path(description="`x-headrace-run` of the answer.", examples=["01a1fcc2-5e9b-7000-8d34-8839179968b9"])
]
After = Annotated[int | None, Query(ge=0, description="How many events the reader has already.", examples=[3])]


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes = APIRouter(tags=["streams"])

    async def caller(request: Request) -> KeyRecord:
        """Runs before parameters are judged: nobody learns anything without a key."""
        parts.refuse_if_draining()
        return (await allow(dict(request.scope["headers"]), parts)).key

    known = Depends(caller)

    @routes.get(
        "/v1/streams/{run}",
        summary="Read a run's events again, from any of them",
        response_class=Response,
        openapi_extra=_READ,
    )
    async def read_stream(run: Run, request: Request, after: After = None, key: KeyRecord = known) -> Response:
        """Live or ended, at any ingress, until five minutes after the run's end, or as long as its answer is
        kept. Only for keys of the same tenant."""
        begin = after if after is not None else _last_event_id(dict(request.scope["headers"]))
        status = await parts.door.status(run) if is_run_id(run) else None
        if status is None:
            kept = await _kept(parts, run, key)
            return _respond(parts, _events(parts.door.replay(kept, begin), kept.stream, begin, parts.health))
        if not belongs(status, key):
            raise _unknown()
        if status.state == "ended" and begin >= status.sequence:
            return _respond(parts, _nothing())
        watch = await parts.door.attach(run, begin)
        give_up = _give_up_ms(status)
        events = _events(watch, status.stream, begin, parts.health, lambda: parts.clock.now_ms() >= give_up)
        return _respond(parts, events, watch)

    return routes


def _give_up_ms(status: RunStatus) -> int:
    """When the run must have ended; 0 where nobody knows."""
    return int(status.detail.get("deadline", "0")) + round(OVERDUE_S * 1000)


async def _kept(parts: Parts, run: str, key: KeyRecord) -> ArchiveRecord:
    """The run in the archive of the key's tenant."""
    kept = None
    if parts.archive is not None and is_run_id(run):
        kept = await parts.archive.find(key.tenant, run, parts.clock.now_ms())
    if kept is None:
        raise _unknown()
    return kept


def _unknown() -> Refusal:
    return Refusal.of(Code.not_found, "There is no such run, or it is no longer kept.", param="run")


def belongs(status: RunStatus, key: KeyRecord) -> bool:
    """Whether the run is this key's or its tenant's. A run that authorization has not judged yet has no tenant."""
    return status.key_id == key.key_id or (bool(status.tenant) and status.tenant == key.tenant)


def _last_event_id(headers: Mapping[bytes, bytes]) -> int:
    text = headers.get(b"last-event-id", b"")
    return int(text) if text.isdigit() and len(text) < 16 else 0


def _respond(parts: Parts, events: AsyncIterator[bytes], watch: Watch | None = None) -> Response:
    async def gone(_: Message) -> None:
        if watch is not None:
            await sign_off(watch)

    return EventSourceResponse(
        events,
        headers={"cache-control": "no-cache"},
        ping=max(1, round(parts.settings.keep_alive)),
        sep="\n",
        ping_message_factory=_Ping,
        send_timeout=parts.settings.stall_limit,
        client_close_handler_callable=gone,
    )


async def _events(
    watch: Watch, stream: bool, after: int, health: Health, late: Callable[[], bool] = lambda: True
) -> AsyncIterator[bytes]:
    """The events as they go out. late: whether the run must have ended; until then an outage of Redis is silence."""
    try:
        while True:
            frame = await _next(watch, late)
            if frame is None:
                continue
            for number, data in events_of(frame, stream):
                if number > after:
                    yield numbered(number, data)
            if frame.terminal:
                return
    except HeadraceError as error:  # after the first byte an error is an event; it has no number
        yield b"data: " + error_body(failure_of(error)) + b"\n\n"
        await sign_off(watch)
    except GeneratorExit:  # a reader that took nothing was cut; when this process goes, the run is left to be read
        if not health.draining:
            await sign_off(watch)
        raise
    finally:
        watch.close()


async def _next(watch: Watch, late: Callable[[], bool]) -> Frame | None:
    try:
        return await watch.next(_WAIT_S)
    except Unavailable:
        if late():
            raise
        return None


async def _nothing() -> AsyncIterator[bytes]:
    """The events after the last one."""
    return
    yield
