"""A response told as the events of its stream. Pure, and blind to engines: they are told by whoever reads them.

    response.created, response.in_progress
    per item      response.output_item.added ... response.output_item.done
    per part      response.content_part.added, its deltas, its .done, response.content_part.done
    per call      response.function_call_arguments.delta ..., .done
    at the end    response.completed | response.incomplete, with the whole response

Numbers run from 0 without a gap. A part is open until something else is said; calls stay open until the end, because
engines may write several at a time. What the events say is what the object at the end holds: both grow here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from providers.responses_object import completed_at, dump


class Kind(NamedTuple):
    """A kind of text: the item and the part it stands in, under which field, and the first words of its events."""

    item: str
    part: Mapping[str, Any]
    text: str
    event: str
    beside: Mapping[str, Any] = {}


TEXT = Kind(
    "message",
    {"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
    "text",
    "response.output_text",
    {"logprobs": []},
)
REFUSAL = Kind("message", {"type": "refusal", "refusal": ""}, "refusal", "response.refusal")
THOUGHT = Kind("reasoning", {"type": "reasoning_text", "text": ""}, "text", "response.reasoning_text")
_PREFIX = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


@dataclass(slots=True)
class _Open:
    """An item that may still grow. pieces: of its open part, or of a call's arguments."""

    item: dict[str, Any]
    at: int
    pieces: list[str] = field(default_factory=list)

    @property
    def place(self) -> dict[str, Any]:
        return {"item_id": self.item["id"], "output_index": self.at}


class Telling:
    """One response. base: the object at its beginning; its items have the same tail as its own id."""

    def __init__(self, base: dict[str, Any]) -> None:
        self._base, self._tail = base, base["id"].removeprefix("resp_")
        self._output: list[dict[str, Any]] = []
        self._events: list[bytes] = []
        self._number = 0
        self._kind: Kind | None = None  # of the open part
        self._speech: _Open | None = None  # the open message or reasoning
        self._place: dict[str, Any] = {}  # of the open part
        self._calls: dict[int, _Open] = {}

    def begin(self) -> None:
        """The two events that come first. Idempotent."""
        if not self._number:
            self._tell("response.created", response=self._base)
            self._tell("response.in_progress", response=self._base)

    def resume(self, events: int, item: Mapping[str, Any] | None, text: str) -> None:
        """So many events went out, of one message at most, which has one part of text at most. Once, at the start."""
        self._number = events
        if item is None:
            return
        parts = len(item.get("content") or [])
        opened = {**item, "content": []}
        self._output.append(opened)
        self._speech = _Open(opened, 0, [text] if text else [])
        if parts:
            self._kind, self._place = TEXT, {**self._speech.place, "content_index": 0}

    def say(self, kind: Kind, delta: str) -> None:
        """A piece of text, never an empty one."""
        if self._speech is None or self._kind is not kind:
            self._speech = self._open_part(kind)
        self._speech.pieces.append(delta)
        self._tell(f"{kind.event}.delta", **self._place, delta=delta, **kind.beside)

    def call(self, key: int, call_id: str, name: str) -> None:
        """A call of a function begins; `key` names it in `argue`."""
        self._close_speech("completed")
        fields = {"call_id": call_id or f"call_{self._tail}_{len(self._output)}", "name": name, "arguments": ""}
        self._calls[key] = self._open_item("function_call", fields)

    def argue(self, key: int, delta: str) -> None:
        """A piece of a call's arguments, never an empty one."""
        self._calls[key].pieces.append(delta)
        self._tell("response.function_call_arguments.delta", **self._calls[key].place, delta=delta)

    def end(self, usage: Mapping[str, Any] | None, reason: str = "", ended_ms: int = 0) -> dict[str, Any]:
        """Nothing more is said; the whole response. reason: why it is incomplete, "" = it is not. ended_ms: now."""
        self.begin()
        if not self._output:
            self._speech = self._open_part(TEXT)
        last, status = len(self._output) - 1, "incomplete" if reason else "completed"
        self._close_speech(status if self._speech and self._speech.at == last else "completed")
        for call in self._calls.values():
            self._close_call(call, status if call.at == last else "completed")
        details = {"reason": reason} if reason else None
        outcome = {"status": status, "incomplete_details": details, "output": self._output, "usage": usage}
        outcome |= completed_at(self._base, status, ended_ms)
        self._tell(f"response.{status}", response={**self._base, **outcome})
        return {**self._base, **outcome}

    def told(self) -> list[bytes]:
        """The events since this was asked last, as they go out."""
        events, self._events = self._events, []
        return events

    def _open_part(self, kind: Kind) -> _Open:
        self._close_part()
        speech = self._speech
        if speech is None or speech.item["type"] != kind.item:
            self._close_speech("completed")
            speech = self._open_item(kind.item, _EMPTY[kind.item])
        self._kind, self._place = kind, {**speech.place, "content_index": len(speech.item["content"])}
        self._tell("response.content_part.added", **self._place, part=kind.part)
        return speech

    def _close_part(self) -> None:
        speech, kind = self._speech, self._kind
        if speech is None or kind is None:
            return
        text = "".join(speech.pieces)
        part = {**kind.part, kind.text: text}
        speech.item["content"].append(part)
        speech.pieces, self._kind = [], None
        self._tell(f"{kind.event}.done", **self._place, **{kind.text: text}, **kind.beside)
        self._tell("response.content_part.done", **self._place, part=part)

    def _close_speech(self, status: str) -> None:
        self._close_part()
        if self._speech is not None:
            self._close_item(self._speech, status)
            self._speech = None

    def _close_call(self, call: _Open, status: str) -> None:
        call.item["arguments"] = arguments = "".join(call.pieces)
        self._tell("response.function_call_arguments.done", **call.place, arguments=arguments)
        self._close_item(call, status)

    def _open_item(self, kind: str, fields: Mapping[str, Any]) -> _Open:
        at = len(self._output)
        item = {"id": f"{_PREFIX[kind]}_{self._tail}_{at}", "type": kind, "status": "in_progress", **fields}
        item |= {"content": []} if kind in _EMPTY else {}
        self._output.append(item)
        self._tell("response.output_item.added", output_index=at, item=item)
        return _Open(item, at)

    def _close_item(self, opened: _Open, status: str) -> None:
        opened.item["status"] = status
        self._tell("response.output_item.done", output_index=opened.at, item=opened.item)

    def _tell(self, type: str, **fields: Any) -> None:
        self._events.append(event(type, self._number, fields))
        self._number += 1


#: What an item of text has beside its content.
_EMPTY: Mapping[str, Mapping[str, Any]] = {"message": {"role": "assistant"}, "reasoning": {"summary": []}}


def event(type: str, number: int, fields: Mapping[str, Any]) -> bytes:
    """One event as it goes out, whole: its name, and its data on one line."""
    return b"event: %b\ndata: %b\n\n" % (type.encode(), dump({"type": type, "sequence_number": number, **fields}))
