"""What the events of a response have told so far: the object that they began with, and the items as they stand. Pure.

For whoever was not there when they were told: a router that takes a run over, a reader that asks how far it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Item = dict[str, Any]

#: An event that adds to a text -> the field of its part, or of its item, that grows.
_GROWS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "text",
    "response.reasoning_summary_text.delta": "text",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}
#: An event that begins a part -> where in its item parts of this kind stand.
_BEGINS = {"response.content_part.added": "content", "response.reasoning_summary_part.added": "summary"}
_ITEMS = ("response.output_item.added", "response.output_item.done")
#: Names of a part's place in its list -> the list.
_LISTS = {"content_index": "content", "summary_index": "summary"}


class Told:
    """Grows event by event. response: the object that they began with, None before it was told. deltas: events that
    carried generated text. events: all of them. kinds: those that were told."""

    def __init__(self) -> None:
        self.response: dict[str, Any] | None = None
        self.deltas = 0
        self.events = 0
        self.kinds: set[str] = set()
        self._items: dict[int, Item] = {}

    def hear(self, sent: bytes) -> None:
        """Whole events as they went out. What has no place here adds nothing. ValueError for what is no JSON."""
        for data in _events(sent):
            event = json.loads(data)
            self.events += 1
            try:
                self._add(event)
            except (LookupError, TypeError, AttributeError):
                continue

    def output(self, *, broken: bool = False) -> list[Item]:
        """The items as they stand. broken: nothing more will come, so what is not complete stays incomplete."""
        items = [self._items[at] for at in sorted(self._items)]
        return [{**one, "status": "incomplete"} if broken and _open(one) else one for one in items]

    def _add(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        self.kinds.add(kind)
        self.deltas += kind.endswith(".delta")
        if kind == "response.created":
            self.response = event["response"]
        elif kind in _ITEMS:
            self._items[event["output_index"]] = event["item"]
        elif kind in _BEGINS:
            self._items[event["output_index"]].setdefault(_BEGINS[kind], []).append(event["part"])
        elif kind in _GROWS:
            _place(self._items[event["output_index"]], event)[_GROWS[kind]] += event["delta"]


def _open(item: Item) -> bool:
    return item.get("status") == "in_progress"


def _place(item: Item, event: Mapping[str, Any]) -> Item:
    """The part that an event adds to, or the item itself."""
    for index, parts in _LISTS.items():
        if index in event:
            found: Item = item[parts][event[index]]
            return found
    return item


def _events(sent: bytes) -> Iterator[bytes]:
    """The data of each event."""
    for block in sent.split(b"\n\n"):
        _, _, data = block.partition(b"\n")
        if data:
            yield data.removeprefix(b"data: ")
