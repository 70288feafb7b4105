"""GET /v1/streams/{run}?after=N: read a run again from any event, live or ended, at any ingress.

Each event comes with `id: <number>`, counted as the client of the run counted them; the browser's Last-Event-ID works
in place of `after`. Who may read, and how silence is bridged: ingress/reading.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from ingress.documents.openapi import EVENT, EVENTS, Part, answer, fails, operation
from ingress.errors import error_body
from ingress.parts import Parts
from ingress.reading import Look, caller_of, find, show
from ingress.replay import events_of, numbered
from schemas.errors import Code, Failure, Refusal
from schemas.frames import Frame
from schemas.records import KeyRecord

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

Run = Annotated[
    str, Path(description="`x-headrace-run` of the answer.", examples=["01a1fcc2-5e9b-7000-8d34-8839179968b9"])
]
After = Annotated[int | None, Query(ge=0, description="How many events the reader has already.", examples=[3])]


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes = APIRouter(tags=["streams"])

    known = Depends(caller_of(parts))

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
        found = await find(parts, run, key)
        if found is None:
            raise Refusal.of(Code.not_found, "There is no such run, or it is no longer kept.", param="run")
        return await show(parts, found, begin, numbers(found.stream, begin))

    return routes


def numbers(stream: bool, after: int) -> Look:
    """Events behind `after` with their numbers. stream: whether the run's answer is one."""

    async def new(frame: Frame) -> Iterable[bytes]:
        return (numbered(number, data) for number, data in events_of(frame, stream) if number > after)

    return Look(new, _unnumbered)


def _last_event_id(headers: Mapping[bytes, bytes]) -> int:
    text = headers.get(b"last-event-id", b"")
    return int(text) if text.isdigit() and len(text) < 16 else 0


async def _unnumbered(failure: Failure, after: int) -> bytes:
    return b"data: " + error_body(failure) + b"\n\n"
