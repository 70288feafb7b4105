"""The response object of the Responses API and its names, as everybody who writes or reads them must form them. Pure.

A response is a run: `resp_` and the run id without dashes. Its items have the same tail behind a prefix of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from schemas.errors import Code, Failure, status_of

_ID = re.compile(r"resp_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})")


def response_id(run: str) -> str:
    """The public name of a run's response."""
    return "resp_" + run.replace("-", "")


def run_of(response: str) -> str:
    """The run behind a public name; "" when it is none."""
    found = _ID.fullmatch(response)
    return "-".join(found.groups()) if found else ""


#: What the object repeats of the request, and what stands there when it said nothing. What only an engine could know
#: (the temperature that a model uses by itself) is null then.
_ECHOED: Mapping[str, Any] = {
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
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


#: What OpenAI's clients know as `error.code` of a response. An engine that says one of them is repeated.
CODES = frozenset((
    "server_error", "rate_limit_exceeded", "invalid_prompt", "data_residency_mismatch", "bio_policy",
    "misalignment_policy_violation", "vector_store_timeout", "invalid_image", "invalid_image_format",
    "invalid_base64_image", "invalid_image_url", "image_too_large", "image_too_small", "image_parse_error",
    "image_content_policy_violation", "invalid_image_mode", "image_file_too_large", "unsupported_image_media_type",
    "empty_image_file", "failed_to_download_image", "image_file_not_found",
))  # fmt: skip
#: Statuses of a request that cannot be answered as it is.
_UNANSWERABLE = (400, 413, 422)


def error_object(failure: Failure) -> dict[str, Any]:
    """Why a response failed, in the words that clients know; `type` says it in ours, or in the engine's."""
    return {
        "code": _code_of(failure),
        "message": failure.message,
        "param": failure.param,
        "type": failure.public_code or failure.code,
    }


def _code_of(failure: Failure) -> str:
    if failure.public_code in CODES:
        return failure.public_code
    status = status_of(failure)
    if status == 429 or failure.code == Code.rate_limit_exceeded:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status in _UNANSWERABLE else "server_error"


def response_object(run: str, accepted_ms: int, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A response that has just begun: in progress, nothing said. body: the request."""
    said = {name: usual if body.get(name) is None else body[name] for name, usual in _ECHOED.items()}
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    return {
        "id": response_id(run),
        "object": "response",
        "created_at": accepted_ms // 1000,
        "status": "in_progress",
        "completed_at": None,
        "background": body.get("background") is True,
        "error": None,
        "incomplete_details": None,
        **said,
        "model": model,
        "output": [],
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "store": body.get("store") is True,
        "text": {"format": {"type": "text"}, **{name: value for name, value in text.items() if value is not None}},
        "usage": None,
    }
