"""GET, DELETE /v1/responses/{id}, POST .../cancel, GET .../input_items: responses that are there already.

None of these starts work, so the door authenticates them itself. What is shown: ingress/responses/shown.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Path, Query, Response

from ingress.documents.responses import CANCEL, DELETE, GET, INPUT_ITEMS
from ingress.parts import Parts
from ingress.presence import sign_off
from ingress.reading import Found, caller_of, is_deleted, show
from ingress.responses.conversation import listed, page_of
from ingress.responses.shown import (
    asked_in,
    ended,
    failed_at_once,
    is_background,
    look_behind,
    no_response,
    object_of,
    response_of,
    so_far,
)
from schemas.errors import Code, Refusal
from schemas.ports import RunStatus
from schemas.records import KeyRecord
from schemas.routes import RESPONSES

_PATH = RESPONSES + "/{response_id}"
_STOPPING_S = 5.0  # how long a request waits for the end of a run that it has cancelled

Id = Annotated[str, Path(description="`id` of the response.", examples=["resp_01a1fcc25e9b70008d348839179968b9"])]
Behind = Annotated[
    int | None, Query(ge=0, description="With `stream`: the `sequence_number` of the last event that the reader has.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="Items of a page.")]
Order = Annotated[Literal["asc", "desc"], Query(description="By the place in the input.")]
After = Annotated[str | None, Query(description="The last item of the page before.")]
Streamed = Annotated[bool, Query(description="The events as a stream, live or ended.")]


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes, known = APIRouter(tags=["responses"]), Depends(caller_of(parts))
    for add in (_get, _cancel, _delete, _input_items):
        add(routes, parts, known)
    return routes


def _get(routes: APIRouter, parts: Parts, known: Any) -> None:
    @routes.get(_PATH, summary="Show a response, or read its events again", openapi_extra=GET)
    async def get_response(
        response_id: Id, stream: Streamed = False, starting_after: Behind = None, key: KeyRecord = known
    ) -> Response:
        """As it stands: queued, in progress with what was said so far, or how it ended. With `stream=true` the events
        behind `starting_after`, byte for byte, live or ended, at any ingress."""
        found = await response_of(parts, response_id, key)
        if not stream:
            return _json(await object_of(parts, found))
        if not found.stream:
            words = "This response was not made as a stream: ask with 'stream' or 'background' next time."
            raise Refusal.of(Code.invalid_request, words, param="stream")
        after = 0 if starting_after is None else starting_after + 1
        begin = 0 if failed_at_once(found) else after
        return await show(parts, found, begin, await look_behind(parts, found, after))


def _cancel(routes: APIRouter, parts: Parts, known: Any) -> None:
    @routes.post(_PATH + "/cancel", summary="Cancel a response in the background", openapi_extra=CANCEL)
    async def cancel_response(response_id: Id, key: KeyRecord = known) -> Response:
        """Ends the run wherever it stands; one that has ended stays as it is. What was generated is billed."""
        found = await response_of(parts, response_id, key)
        if not is_background(found):
            words = "Only a response that was asked for with 'background' can be cancelled; else close its connection."
            raise Refusal.of(Code.invalid_request, words, param="response_id")
        if isinstance(found, RunStatus) and not ended(found):
            found = await _stop(parts, found)
            if not ended(found):  # its owner has been told and will stop
                return _json(await so_far(parts, found, "cancelled", ending=True))
        return _json(await object_of(parts, found))


def _delete(routes: APIRouter, parts: Parts, known: Any) -> None:
    @routes.delete(_PATH, summary="Delete a response", openapi_extra=DELETE)
    async def delete_response(response_id: Id, key: KeyRecord = known) -> Response:
        """What was asked and answered goes, in the store and in the record; one that runs is cancelled first. The
        request's row stays: it holds no text."""
        found = await response_of(parts, response_id, key, deleted=True)
        again = is_deleted(found)
        if isinstance(found, RunStatus) and not again:
            if not ended(found):
                await _stop(parts, found)
            if not await parts.door.forget(found.run):
                raise Refusal.of(Code.overloaded, "This response is being cancelled; delete it again in a moment.")
        kept = parts.archive is not None and await parts.archive.forget(key.tenant, found.run)
        if again and not kept:  # else the first time did not get as far as the archive
            raise no_response()
        return _json({"id": response_id, "object": "response", "deleted": True})


def _input_items(routes: APIRouter, parts: Parts, known: Any) -> None:
    @routes.get(_PATH + "/input_items", summary="List what was asked", openapi_extra=INPUT_ITEMS)
    async def list_input_items(
        response_id: Id, limit: Limit = 20, order: Order = "desc", after: After = None, key: KeyRecord = known
    ) -> Response:
        """The items of the input, those of the turns before it too, while the input is kept."""
        found = await response_of(parts, response_id, key)
        asked = await asked_in(parts, found)
        if "input" not in asked:
            words = "The input of this response is not kept."
            raise Refusal.of(Code.not_found, words, param="response_id")
        return _json(page_of(listed(found.run, asked["input"]), limit, order == "desc", after))


async def _stop(parts: Parts, status: RunStatus) -> Found:
    """Cancel the run and wait a moment for its end; the run as it stands then."""
    await parts.door.cancel(status.run, "client")
    watch = await parts.door.attach(status.run, status.sequence)
    until = parts.clock.monotonic() + _STOPPING_S
    try:
        while (left := until - parts.clock.monotonic()) > 0:
            frame = await watch.next(left)
            if frame is not None and frame.terminal:
                break
    finally:
        await sign_off(watch)
        watch.close()
    return await parts.door.status(status.run) or status


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
