"""The response object as the door shows it while the run has none of its own: queued, in progress, cancelled, or failed
before a whole answer was there. Pure.

A run that was answered carries its object in its last frame, and that is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ingress.errors import face_of
from schemas.errors import Code, Failure
from schemas.responses import response_object

Response = dict[str, Any]


def unfinished(run: str, created_ms: int, asked: Mapping[str, Any], status: str) -> Response:
    """The object of a run without an answer. asked: the request's body, {} when it is no longer kept. status: queued |
    in_progress | cancelled."""
    return {**response_object(run, created_ms, str(asked.get("model", "")), asked), "status": status}


def failed(run: str, created_ms: int, asked: Mapping[str, Any], failure: Failure) -> Response:
    """The object of a run that ended without an answer; one that was cancelled says that and no error."""
    if failure.code == Code.cancelled:
        return unfinished(run, created_ms, asked, "cancelled")
    code = failure.public_code or face_of(failure).code or failure.code
    said = {"code": code, "message": failure.message}
    return {**unfinished(run, created_ms, asked, "failed"), "error": said}


def failed_event(number: int, response: Response) -> bytes:
    """The last event of a stream whose run has no answer. Never an `error` event: clients raise it and lose the object.
    number: its sequence_number."""
    event = {"type": "response.failed", "sequence_number": number, "response": response}
    return b"event: response.failed\ndata: " + orjson.dumps(event) + b"\n\n"
