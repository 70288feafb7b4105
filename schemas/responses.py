"""The response object of the Responses API and its names, as everybody who writes or reads them must form them. Pure.

A response is a run: `resp_` and the run id without dashes. Its items have the same tail behind a prefix of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    "top_p": None,
    "user": None,
}


def response_object(run: str, accepted_ms: int, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A response that has just begun: in progress, nothing said. body: the request. A truncation is not carried out, so
    the object says `disabled`, whatever was asked for."""
    said = {name: usual if body.get(name) is None else body[name] for name, usual in _ECHOED.items()}
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    return {
        "id": response_id(run),
        "object": "response",
        "created_at": accepted_ms // 1000,
        "status": "in_progress",
        "background": body.get("background") is True,
        "error": None,
        "incomplete_details": None,
        **said,
        "model": model,
        "output": [],
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "store": body.get("store") is True,
        "text": {"format": {"type": "text"}, **{name: value for name, value in text.items() if value is not None}},
        "truncation": "disabled",
        "usage": None,
    }
