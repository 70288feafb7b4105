"""The operations of the Responses API: what is asked, and every answer they can have."""

from __future__ import annotations

from typing import Any

from ingress.documents.openapi import EVENT, EVENTS, Part, answer, asks, fails, operation
from ingress.documents.request_headers import REQUEST_HEADERS
from ingress.documents.work import LAST_WORDS, MODEL, answered, asked_fields, request_of, run_failures
from ingress.responses.asked import PREVIOUS, RESPONSE_FIELDS
from ingress.responses.resource import unfinished
from schemas.errors import Code

_RUN = "01a1fcc2-5e9b-7000-8d34-8839179968b9"
_ASKED: dict[str, Any] = {"model": "smollm2", "input": "Say hello"}
_SAID = {"type": "output_text", "text": "Hello!", "annotations": []}
_ITEM: Part = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
_INPUT: Part = {
    "description": "A text, or a list of items: messages, function calls and their outputs.",
    "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 100_000, "items": {"type": "object"}}],
}
_MORE: Part = {
    "stream": {"description": "The answer as server-sent events with gapless numbers, without `[DONE]`."},
    "stream_options": {"description": "Only together with `stream: true`."},
    "background": {"description": "Answer at once; the run goes on without a client, for an hour at most."},
    "store": {"description": "Keep answer and input for a day, sealed. Left out: yes, where it is allowed."},
    PREVIOUS: {"description": "The response before this turn; its items come first. It must be stored."},
}
_REQUEST = request_of(
    "OpenAI's response request.",
    ["model", "input"],
    {"model": MODEL, "input": _INPUT, **asked_fields(RESPONSE_FIELDS, _MORE)},
)
_STATUSES = ["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
_RESPONSE: Part = {
    "type": "object",
    "required": ["id", "object", "created_at", "status", "model", "output"],
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string", "const": "response"},
        "created_at": {"type": "integer", "description": "Seconds since the epoch."},
        "status": {"type": "string", "enum": _STATUSES},
        "model": {"type": "string", "description": "The name that was asked for."},
        "output": {"type": "array", "items": _ITEM},
        "error": {"type": ["object", "null"]},
        "usage": {"type": ["object", "null"]},
    },
    "additionalProperties": True,
}
_SHOWN = {
    **unfinished(_RUN, 1_760_000_000_000, _ASKED, "completed"),
    "output": [{"type": "message", "role": "assistant", "status": "completed", "id": "msg_1", "content": [_SAID]}],
}
_DELTA = (
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","output_index":0,'
    '"content_index":0,"delta":"Hello"}\n\n'
)
_EVENTS = answer(_DELTA, schema=EVENT, media=EVENTS)

CREATE = operation(
    {
        "description": "The answer comes whole, as server-sent events with `stream: true`, or later with "
        f"`background: true`. {LAST_WORDS}"
    },
    asks(_ASKED, _REQUEST),
    answered(_SHOWN, _RESPONSE, "The response, whole or as a stream."),
    _EVENTS,
    run_failures(),
    REQUEST_HEADERS,
)
GET = operation(answer(_SHOWN, schema=_RESPONSE), _EVENTS, fails(Code.not_found, Code.draining))
CANCEL = operation(
    answer(unfinished(_RUN, 1_760_000_000_000, _ASKED, "cancelled"), schema=_RESPONSE),
    fails(Code.not_found, Code.draining),
)
_DELETED: Part = {
    "type": "object",
    "required": ["id", "object", "deleted"],
    "properties": {"id": {"type": "string"}, "object": {"const": "response"}, "deleted": {"const": True}},
}
DELETE = operation(
    answer({"id": _SHOWN["id"], "object": "response", "deleted": True}, schema=_DELETED),
    fails(Code.not_found, Code.draining, Code.overloaded),
)
_PAGE: Part = {
    "type": "object",
    "required": ["object", "data", "first_id", "last_id", "has_more"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": _ITEM},
        "first_id": {"type": ["string", "null"]},
        "last_id": {"type": ["string", "null"]},
        "has_more": {"type": "boolean"},
    },
}
_MESSAGE = {
    "id": "item_1",
    "type": "message",
    "role": "user",
    "status": "completed",
    "content": [{"type": "input_text", "text": "Say hello"}],
}
_LISTED = {"object": "list", "data": [_MESSAGE], "first_id": "item_1", "last_id": "item_1", "has_more": False}
INPUT_ITEMS = operation(answer(_LISTED, schema=_PAGE), fails(Code.not_found, Code.draining))
