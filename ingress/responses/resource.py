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


def failed_event(number: int, response: Response) -> bytes:
    """The last event of a stream whose run has no answer. Never an `error` event: clients raise it and lose the object.
    number: its sequence_number."""
    event = {"type": "response.failed", "sequence_number": number, "response": response}
    return b"event: response.failed\ndata: " + orjson.dumps(event) + b"\n\n"
