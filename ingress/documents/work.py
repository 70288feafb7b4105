"""The operations whose requests become runs: what is asked, and every answer they can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingress.asked import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS
from ingress.documents.openapi import EVENT, EVENTS, Part, answer, asks, fails, operation
from ingress.documents.request_headers import REQUEST_HEADERS
from ingress.shapes import Shape
from schemas.errors import Code
from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS

MODEL: Part = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "description": "A name that GET /v1/models lists.",
}

_MESSAGE: Part = {
    "type": "object",
    "required": ["role"],
    "properties": {"role": {"type": "string", "minLength": 1}},
    "additionalProperties": True,
}

_STREAMED: Part = {
    "stream": {"description": "The answer as server-sent events, ended by `[DONE]`."},
    "stream_options": {"description": "Only together with `stream: true`."},
}


def asked_fields(shapes: Mapping[str, Shape], more: Part) -> Part:
    """The fields that are checked, as the document shows them. more: what it says beside their types."""
    return {name: {**shape.schema, **more.get(name, {})} for name, shape in shapes.items()}


def request_of(said: str, needs: list[str], fields: Part) -> Part:
    said += " Fields that are not listed go to the engine as they are."
    return {
        "type": "object",
        "description": said,
        "required": needs,
        "properties": fields,
        "additionalProperties": True,
    }


_CHAT = request_of(
    "OpenAI's chat request.",
    ["model", "messages"],
    {
        "model": MODEL,
        "messages": {"type": "array", "minItems": 1, "maxItems": 100_000, "items": _MESSAGE},
        **asked_fields(CHAT_FIELDS, {**_STREAMED, "store": {"description": "Keep the answer for a day, sealed."}}),
    },
)

_TOKENS: Part = {"type": "array", "minItems": 1, "maxItems": 100_000, "items": {"type": "integer", "minimum": 0}}
_TEXTS: Part = {"type": "array", "minItems": 1, "maxItems": 100_000, "items": {"type": "string"}}
_TEXTS_OR_TOKENS: Part = {
    "description": "A text, a list of texts, token ids, or lists of token ids (100,000 altogether).",
    "anyOf": [{"type": "string"}, _TEXTS, _TOKENS, {"type": "array", "minItems": 1, "items": _TOKENS}],
}
_PART: Part = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_MODERATED: Part = {
    "description": "A text, a list of texts, or a list of text parts, which together are one input.",
    "anyOf": [
        {"type": "string"},
        {**_TEXTS, "maxItems": 1024},
        {"type": "array", "minItems": 1, "maxItems": 1024, "items": _PART},
    ],
}

_COMPLETION_ASKED = request_of(
    "OpenAI's completion request.",
    ["model", "prompt"],
    {
        "model": MODEL,
        "prompt": _TEXTS_OR_TOKENS,
        **asked_fields(COMPLETION_FIELDS, _STREAMED),
    },
)
_NOT_STREAMED: Part = {"enum": [False, None], "description": "This route answers whole."}
_EMBEDDING_ASKED = request_of(
    "OpenAI's embedding request.",
    ["model", "input"],
    {
        "model": MODEL,
        "input": _TEXTS_OR_TOKENS,
        **asked_fields(EMBEDDING_FIELDS, {}),
        "stream": _NOT_STREAMED,
    },
)
_MODERATION_ASKED = request_of(
    "OpenAI's moderation request. `model` means nothing here: the guardrails of this gateway judge.",
    ["input"],
    {"model": {**MODEL, "type": ["string", "null"]}, "input": _MODERATED, "stream": _NOT_STREAMED},
)

_ASKED: dict[str, Any] = {"model": "smollm2", "messages": [{"role": "user", "content": "Say hello"}]}

_COMPLETION: Part = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string"},
        "created": {"type": "integer"},
        "model": {"type": "string", "description": "The name that was asked for."},
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": ["object", "null"]},
    },
    "additionalProperties": True,
}

_ANSWERED: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_760_000_000,
    "model": "smollm2",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
}

_CHUNK = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"smollm2",'
    '"choices":[{"index":0,"delta":{"content":"Hello!"},"finish_reason":null}]}\n\n'
)

RUN_HEADER: Part = {
    "x-headrace-run": {
        "description": "The run: GET /v1/streams/{run} reads it again, `headrace trace` shows its life.",
        "schema": {"type": "string"},
    }
}

REPLAYED_HEADER: Part = {
    "idempotent-replayed": {
        "description": "`true`: this is the answer of an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}

LIMIT_HEADERS: Part = {
    f"x-ratelimit-{name}-requests": {"description": said, "schema": {"type": "string"}}
    for name, said in (
        ("limit", "Requests per minute of the key, where it has a limit."),
        ("remaining", "How many are left."),
        ("reset", "When all are free again."),
    )
}


def run_failures() -> Part:
    """How any run can fail before its answer has begun. An engine's own refusal keeps its words."""
    return fails(
        Code.invalid_request,
        Code.missing_required_parameter,
        Code.content_policy_violation,
        Code.context_length_exceeded,
        Code.invalid_api_key,
        Code.permission_denied,
        Code.model_not_found,
        Code.idempotency_key_reused,
        Code.request_timeout,
        Code.request_too_large,
        Code.rate_limit_exceeded,
        Code.internal_error,
        Code.upstream_error,
        Code.overloaded,
        Code.no_engine,
        Code.guardrail_unavailable,
        Code.store_unavailable,
        Code.draining,
        Code.upstream_timeout,
        Code.deadline_exceeded,
    )


_ONCE = "A request ends exactly once, with an answer or with an error that has a code."
LAST_WORDS = f"{_ONCE} After the first event of a stream an error is its last event, without `[DONE]`."
_WHOLE_ANSWER = "The answer, whole or as a stream."


def _listing(item: Part) -> Part:
    """OpenAI's list, of an engine or of ours."""
    data = {"type": "array", "items": item}
    return {"type": "object", "required": ["data"], "properties": {"data": data}, "additionalProperties": True}


def answered(example: object, schema: Part, said: str = "The answer.") -> Part:
    return answer(example, said, schema=schema, headers={**RUN_HEADER, **REPLAYED_HEADER, **LIMIT_HEADERS})


_VECTOR: Part = {"type": "object", "required": ["embedding", "index"]}
_EMBEDDED = {
    "object": "list",
    "model": "all-minilm-l6-v2",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0213, -0.0541]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
_MODERATION: Part = {
    "type": "object",
    "required": ["id", "model", "results"],
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "results": _listing({})["properties"]["data"],
    },
    "additionalProperties": True,
}
_FLAGGED = {
    "id": "modr-01a1fcc2-5e9b-7000-8d34-8839179968b9",
    "model": "moderations",
    "results": [{"flagged": True, "categories": {"card": True}, "category_scores": {"card": 1.0}}],
}
_CONTINUED: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_760_000_000,
    "model": "smollm2",
    "choices": [{"index": 0, "text": " down to the mill.", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
}
_PIECE = (
    'data: {"id":"cmpl-1","object":"text_completion","created":1760000000,"model":"smollm2",'
    '"choices":[{"index":0,"text":" down","finish_reason":null}]}\n\n'
)

OPERATIONS: Mapping[str, Part] = {
    CHAT: operation(
        {"description": f"The answer comes whole or, with `stream: true`, as server-sent events. {LAST_WORDS}"},
        asks(_ASKED, _CHAT),
        answered(_ANSWERED, _COMPLETION, _WHOLE_ANSWER),
        answer(f"{_CHUNK}data: [DONE]\n\n", schema=EVENT, media=EVENTS),
        run_failures(),
        REQUEST_HEADERS,
    ),
    COMPLETIONS: operation(
        {"description": f"OpenAI's older way to ask, for engines that have it. {LAST_WORDS}"},
        asks({"model": "smollm2", "prompt": "Water flows", "max_tokens": 16}, _COMPLETION_ASKED),
        answered(_CONTINUED, _COMPLETION, _WHOLE_ANSWER),
        answer(f"{_PIECE}data: [DONE]\n\n", schema=EVENT, media=EVENTS),
        run_failures(),
        REQUEST_HEADERS,
    ),
    EMBEDDINGS: operation(
        {"description": f"A vector for each text, in order. {_ONCE}"},
        asks({"model": "all-minilm-l6-v2", "input": ["A channel that leads water", "A mill race"]}, _EMBEDDING_ASKED),
        answered(_EMBEDDED, _listing(_VECTOR)),
        run_failures(),
        REQUEST_HEADERS,
    ),
    MODERATIONS: operation(
        {"description": f"No engine is called. {_ONCE}"},
        asks({"input": "My card is 4111 1111 1111 1111"}, _MODERATION_ASKED),
        answered(_FLAGGED, _MODERATION),
        run_failures(),
        REQUEST_HEADERS,
    ),
}
