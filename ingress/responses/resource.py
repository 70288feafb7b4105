"""The response object as the door shows it while the run has none of its own: queued, in progress, cancelled, or failed
before a whole answer was there. Pure.

A run that was answered carries its object in its last frame, and that is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from schemas.errors import Code, Failure
from schemas.responses import error_object, response_object

Response = dict[str, Any]


def unfinished(run: str, created_ms: int, asked: Mapping[str, Any], status: str) -> Response:
    """The object of a run that has said nothing. asked: the request's body, {} when it is no longer kept. status:
    queued | in_progress | cancelled."""
    return {**response_object(run, created_ms, str(asked.get("model", "")), asked), "status": status}


def standing(begun: Response, status: str, output: Sequence[Mapping[str, Any]] = ()) -> Response:
    """The object of a run that has said `output`. begun: the object as it began."""
    return {**begun, "status": status, "output": list(output)}


def failed(begun: Response, failure: Failure) -> Response:
    """The object of a run that ended without a whole answer; one that was cancelled says that and no error."""
    if failure.code == Code.cancelled:
        return {**begun, "status": "cancelled"}
    return {**begun, "status": "failed", "error": error_object(failure)}


def last_events(number: int, response: Response) -> list[bytes]:
    """How a stream ends whose run has no answer: response.failed with the whole object. Never an `error` event: clients
    raise it and lose the object. One that has told nothing begins first, for clients read no other beginning. number:
    of events that went out."""
    ended = ("response.failed", response)
    if number:
        return [_event(number, *ended)]
    begun = {**response, "status": "in_progress", "error": None}
    return [_event(0, "response.created", begun), _event(1, *ended)]


def _event(number: int, kind: str, response: Response) -> bytes:
    event = {"type": kind, "sequence_number": number, "response": response}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event))
