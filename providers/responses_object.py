"""What the dialects of Responses share: the object at its beginning, its usage, JSON in and out. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from providers.openai_openai import usage_of
from providers.ports import Question
from schemas.events import Usage
from schemas.responses import response_object

_encoder = msgspec.json.Encoder()


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


def begun(question: Question) -> dict[str, Any]:
    """The response that a run begins with: in progress, nothing said."""
    return response_object(question.run, question.accepted_ms, question.model, load(question.body))


def completed_at(begun: Mapping[str, Any], status: Any, ended_ms: int) -> dict[str, Any]:
    """When the response was complete, for its object; never before its beginning, which another clock has told."""
    return {"completed_at": max(ended_ms // 1000, begun["created_at"]) if status == "completed" and ended_ms else None}


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
    return usage_shown(usage, (details.reasoning_tokens if details else 0) or 0)


def usage_shown(usage: Usage, thought: int = 0) -> dict[str, Any]:
    """thought: tokens of reasoning among those of the answer, as the engine says."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": min(max(thought, 0), usage.completion_tokens)},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
