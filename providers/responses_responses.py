"""From a Responses request to an engine that speaks the Responses API itself. Pure: bytes in, bytes out.

The engine is told to store nothing; the response's id, time, model and the numbers of its events are ours, so that a
reader resumes here and never there. Items keep the engine's ids: a reasoning item is bound to its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from providers.errors import BadResponse, Broken
from providers.openai_errors import error_of
from providers.openai_openai import usage_of
from providers.ports import Answered, Question
from providers.responses_events import event
from providers.responses_object import begun, completed_at, dump, load
from schemas.errors import UNREADABLE
from schemas.events import Usage

PATH = "/responses"
#: Fields of a response that are ours, whatever the engine says.
_OURS = ("id", "created_at", "model", "background", "store", "previous_response_id", "metadata")
_FINISHED = {"max_output_tokens": "length", "content_filter": "content_filter"}


def request(question: Question, upstream_model: str) -> bytes:
    """The engine's request. Thoughts that carry nothing are left out: the engine has not kept what they stand for."""
    body = load(question.body)
    for name in ("background", "previous_response_id", "stream"):
        body.pop(name, None)
    items = body.get("input")
    if isinstance(items, list):
        body["input"] = [item for item in items if not _empty_thoughts(item)]
    stream = {"stream": True} if question.stream else {}
    return dump({**body, "model": upstream_model or question.model, "store": False, **stream})


def _empty_thoughts(item: Any) -> bool:
    thoughts = isinstance(item, dict) and item.get("type") == "reasoning"
    return thoughts and not item.get("encrypted_content") and not item.get("content")


def answer(question: Question, body: bytes, ended_ms: int = 0) -> Answered:
    """A unary answer for the client. BadResponse, EngineError."""
    found = _decoded(body)
    if found.get("error"):
        raise error_of(found)
    if not isinstance(found.get("output"), list):
        raise BadResponse("the engine's answer has no output")
    ours = _ours(question)
    return Answered(
        body=dump({**found, **ours, **completed_at(ours, found.get("status"), ended_ms)}),
        usage=_usage(found),
        finish_reason=_finish_reason(found),
        text_bytes=len(dump(found["output"])),
    )


class PassedStream:
    """Implements providers.ports.EngineStream: each event is one of the client's, the last one held for the end."""

    def __init__(self, question: Question) -> None:
        self.usage: Usage | None = None
        self.finish_reason = ""
        self.pieces = 0
        self.done = False
        self.told = 0
        self._ours = _ours(question)
        self._number = 0
        self._kind, self._last = "", dict[str, Any]()

    def take(self, data: bytes) -> bytes | None:
        """See EngineStream. Nothing counts after the event that ends the response."""
        if self.done or data.startswith(b"[DONE]"):
            return None
        found = _decoded(data)
        kind = found.get("type")
        if kind == "error" or found.get("error"):
            raise error_of(found)
        if not isinstance(kind, str) or "\n" in kind or (kind != "response.created" and not self._number):
            raise BadResponse("the engine sent an event that has no place in a response")
        if kind == "response.failed":
            raise error_of(found.get("response"))
        if isinstance(found.get("response"), dict):
            found["response"] = {**found["response"], **self._ours}
        if kind in ("response.completed", "response.incomplete"):
            self._end(kind, found)
            return None
        self.pieces += kind.endswith(".delta")
        self.told = 1
        return self._event(kind, found)

    def ending(self, ended_ms: int = 0) -> bytes:
        """See EngineStream."""
        if not self._number:
            raise BadResponse("the engine's stream carried no answer")
        if not self.done:
            raise Broken("the engine's stream ended before the answer was complete")
        self.told, response = 1, self._last["response"]
        ended = completed_at(response, response.get("status"), ended_ms)
        return self._event(self._kind, {**self._last, "response": {**response, **ended}})

    def _end(self, kind: str, found: dict[str, Any]) -> None:
        response = found.get("response")
        if not isinstance(response, dict):
            raise BadResponse("the engine's last event has no response")
        self.usage, self.finish_reason = _usage(response), _finish_reason(response)
        self.done, self._kind, self._last = True, kind, found

    def _event(self, kind: str, found: dict[str, Any]) -> bytes:
        """An event of the engine under our number."""
        out = event(kind, self._number, {name: value for name, value in found.items() if name not in _NUMBERED})
        self._number += 1
        return out


_NUMBERED = ("type", "sequence_number")


def _ours(question: Question) -> dict[str, Any]:
    shown = begun(question)
    return {name: shown[name] for name in _OURS}


def _usage(response: dict[str, Any]) -> Usage | None:
    """The engine's counts, read as strictly as those of a chat."""
    counts = response.get("usage")
    if not isinstance(counts, dict):
        return None
    said = {
        "prompt_tokens": counts.get("input_tokens"),
        "completion_tokens": counts.get("output_tokens"),
        "prompt_tokens_details": counts.get("input_tokens_details"),
    }
    return usage_of(msgspec.Raw(dump(said)))


def _finish_reason(response: dict[str, Any]) -> str:
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return _FINISHED.get(reason, "stop") if isinstance(reason, str) else "stop"


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        found = load(data)
    except (*UNREADABLE, ValueError):
        raise BadResponse("the engine sent something that is not JSON") from None
    if not isinstance(found, dict):
        raise BadResponse("the engine sent something that is not a JSON object")
    return found
