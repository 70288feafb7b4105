"""The operation POST /v1/chat/completions: what is asked, every answer it can have. Unknown fields are passed on."""

from __future__ import annotations

from typing import Any

from ingress.documents.openapi import EVENT, EVENTS, Part, answer, asks, fails, operation
from schemas.errors import Code

_NUMBER: Part = {"type": ["number", "null"]}
_WHOLE: Part = {"type": ["integer", "null"]}
_COUNT: Part = {"type": ["integer", "null"], "minimum": 1}
_FLAG: Part = {"type": ["boolean", "null"]}
_LIST: Part = {"type": ["array", "null"]}
_OBJECT: Part = {"type": ["object", "null"]}

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

REQUEST: Part = {
    "type": "object",
    "description": "OpenAI's chat request. Fields that are not listed go to the engine as they are.",
    "required": ["model", "messages"],
    "properties": {
        "model": MODEL,
        "messages": {"type": "array", "minItems": 1, "maxItems": 100_000, "items": _MESSAGE},
        "stream": {**_FLAG, "description": "The answer as server-sent events, ended by `[DONE]`."},
        "stream_options": {**_OBJECT, "description": "Only together with `stream: true`."},
        "n": _COUNT,
        "max_tokens": _COUNT,
        "max_completion_tokens": _COUNT,
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "frequency_penalty": _NUMBER,
        "presence_penalty": _NUMBER,
        "seed": _WHOLE,
        "logprobs": _FLAG,
        "top_logprobs": _WHOLE,
        "tools": _LIST,
        "functions": _LIST,
        "parallel_tool_calls": _FLAG,
        "response_format": _OBJECT,
        "logit_bias": _OBJECT,
        "metadata": _OBJECT,
        "user": {"type": ["string", "null"]},
    },
    "additionalProperties": True,
}

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


OPERATION: Part = operation(
    {
        "description": "The answer comes whole or, with `stream: true`, as server-sent events. A request ends exactly "
        "once, with an answer or with an error that has a code. After the first event of a stream an error is its last "
        "event, without `[DONE]`."
    },
    asks(_ASKED, REQUEST),
    answer(_ANSWERED, "The answer, whole or as a stream.", schema=_COMPLETION, headers={**RUN_HEADER, **LIMIT_HEADERS}),
    answer(f"{_CHUNK}data: [DONE]\n\n", schema=EVENT, media=EVENTS),
    run_failures(),
)
