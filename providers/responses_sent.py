"""What went out of a response that broke off: read from the run's own stream, for the record, for its last event, and
to go on with it. Pure.

A response is continued where it is one text: one message, one part, neither thoughts nor calls. Then the rest is asked
of a chat engine as that of a chat is (openai_continue), and told under the ids and behind the numbers that went out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from providers.openai_continue import Told, whole_usage
from providers.ports import Question
from providers.responses_chunks import ResponseStream
from providers.responses_events import Telling, event
from providers.responses_object import dump, usage_shown
from schemas.errors import UNREADABLE, Failure
from schemas.events import Usage
from schemas.response_events import Told as ToldEvents
from schemas.responses import error_object

#: All that may have gone out of a response which is one text so far.
_PLAIN = frozenset((
    "response.created", "response.queued", "response.in_progress", "response.output_item.added",
    "response.content_part.added", "response.output_text.delta",
))  # fmt: skip


def read(sent: bytes) -> Told:
    """What the client has. Each delta is at least one token."""
    told = _heard(sent)
    text = _text_of(told)
    odd = "" if text is not None else "it carried more than one text"
    return Told(head={"object": "response"}, text=text or "", pieces=told.deltas, odd=odd, events=told)


def _text_of(told: ToldEvents) -> str | None:
    """The text that the response is so far; None where it is anything else."""
    items = told.output()
    if told.response is None or not told.kinds <= _PLAIN or len(items) > 1:
        return None
    if not items:
        return ""
    parts = items[0].get("content") or []
    if items[0].get("type") != "message" or len(parts) > 1:
        return None
    return _text_in(parts[0]) if parts else ""


def _text_in(part: dict[str, Any]) -> str | None:
    strange = part.get("type") != "output_text" or part.get("annotations") or part.get("logprobs")
    return None if strange else str(part.get("text", ""))


def failed(sent: bytes, number: int, failure: Failure) -> bytes:
    """The last event of a response whose engine failed: response.failed with what was said. number: its own.
    ValueError when the events do not begin a response."""
    told = _heard(sent)
    if told.response is None:
        raise ValueError("the events do not begin with a response")
    error, output = error_object(failure), told.output(broken=True)
    response = {**told.response, "status": "failed", "error": error, "output": output}
    return event("response.failed", number, {"response": response})


class ContinuedResponse(ResponseStream):
    """The rest of a response on its way. usage counts the whole answer, as in openai_continue.Continued."""

    def __init__(self, question: Question, told: Told) -> None:
        super().__init__(question, _resumed(told))
        self.pieces = self._said = told.pieces

    def _count(self, counts: msgspec.Raw) -> None:
        try:
            said: Any = msgspec.json.decode(counts)
        except UNREADABLE:
            return
        if isinstance(said, dict):
            super()._count(msgspec.Raw(dump(whole_usage(said, self._said))))
            self.usage = msgspec.structs.replace(self.usage, estimated=True) if self.usage else None


def closing(told: Told, usage: Usage, ended_ms: int) -> tuple[bytes, int]:
    """The end of a response to which its bound leaves nothing more, and how many events that are."""
    telling = _resumed(told)
    telling.end(usage_shown(usage), "max_output_tokens", ended_ms)
    events = telling.told()
    return b"".join(events), len(events)


def _resumed(told: Told) -> Telling:
    """The response where it broke off."""
    events = told.events
    assert events is not None and events.response is not None, "only what was read of a response is continued"
    telling, items = Telling(events.response), events.output()
    telling.resume(events.events, items[0] if items else None, told.text)
    return telling


def _heard(sent: bytes) -> ToldEvents:
    told = ToldEvents()
    told.hear(sent)
    return told
