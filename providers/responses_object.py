"""The response object as clients see it: what the request said, under an id of ours. Pure.

The id is `resp_` and the run's id without dashes, so that any door finds the run from it. Fields that only an engine
could know (the temperature that a model uses by itself) are null where the request did not say them.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from providers.openai_openai import usage_of
from providers.ports import Question

_encoder = msgspec.json.Encoder()
#: Fields that are shown as the request said them, and what stands there when it said nothing.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}


def dump(value: object) -> bytes:
    """JSON; half an emoji, which only an escape can carry, becomes one."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def load(body: bytes) -> dict[str, Any]:
    """A request's body. The door has let only objects in."""
    found: dict[str, Any] = json.loads(body)
    return found


def tail_of(run: str) -> str:
    """What all ids of one response share."""
    return run.replace("-", "")


def response_object(question: Question) -> dict[str, Any]:
    """A response that has just begun: in progress, nothing said. A truncation is not carried out here, so the object
    says `disabled`, whatever was asked for."""
    body = load(question.body)
    said = {name: body.get(name) if body.get(name) is not None else usual for name, usual in _ECHOED.items()}
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    return {
        "id": f"resp_{tail_of(question.run)}",
        "object": "response",
        "created_at": question.accepted_ms // 1000,
        "status": "in_progress",
        "background": body.get("background") is True,
        "error": None,
        "incomplete_details": None,
        **said,
        "model": question.model,
        "output": [],
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "store": body.get("store") is True,
        "text": {"format": {"type": "text"}, **{name: value for name, value in text.items() if value is not None}},
        "truncation": "disabled",
        "usage": None,
    }


class _Thoughts(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Counts(msgspec.Struct):
    completion_tokens_details: _Thoughts | None = None


_thoughts = msgspec.json.Decoder(_Counts)


def usage_object(counts: msgspec.Raw) -> dict[str, Any] | None:
    """A chat completion's usage as a response shows it; None when the engine gave none that can be read."""
    usage = usage_of(counts)
    if usage is None:
        return None
    try:
        details = _thoughts.decode(counts).completion_tokens_details
    except msgspec.MsgspecError:
        details = None
    thought = (details.reasoning_tokens if details else 0) or 0
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": min(max(thought, 0), usage.completion_tokens)},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
