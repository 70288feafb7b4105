"""Earlier turns: the items in front of a request that names the response before it, items by reference, and the pages
of an input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ingress.parts import Parts
from ingress.reading import find
from ingress.responses.asked import PREVIOUS, is_reference
from ingress.responses.shown import asked_in, ended, is_response, object_of
from schemas.errors import Code, Failure, Refusal
from schemas.records import KeyRecord
from schemas.responses import run_of

Item = dict[str, Any]

_ANSWERED = ("completed", "incomplete")
#: Items that an engine numbered itself have other names; they cannot be referred to.
_ITEM = re.compile(r"[a-z]+_([0-9a-f]{32})_[0-9]+")
_MOST_RESPONSES = 256  # whose items one request may refer to
_SHOWN = 64  # characters of an id that a message repeats


async def earlier(parts: Parts, response: str, key: KeyRecord) -> list[Item]:
    """What was asked and answered up to and in that response. Refusal(previous_response_not_found) when it is not
    there, not the tenant's, not kept with its input, or has no answer."""
    turn = await _turn(parts, response, key)
    if isinstance(turn, str):
        raise _not_found(f"Previous response with id '{response[:_SHOWN]}' {turn}.")
    return [*turn.asked, *turn.said]


async def in_full(parts: Parts, items: Sequence[Item], key: KeyRecord) -> list[Item]:
    """The items, those of earlier responses that were only referred to in their places. Refusal(not_found), as for
    `earlier`; Refusal(invalid_request) for items of too many responses."""
    known: dict[str, Mapping[str, Item]] = {}
    found: list[Item] = []
    for number, item in enumerate(items):
        found.append(await _referred(parts, item["id"], number, key, known) if is_reference(item) else item)
    return found


async def _referred(parts: Parts, name: str, number: int, key: KeyRecord, known: dict[str, Mapping[str, Item]]) -> Item:
    """known: the items of responses that were looked up already; grows."""
    where, shape = f"input[{number}].id", _ITEM.fullmatch(name)
    response = f"resp_{shape[1]}" if shape else ""
    if response not in known:
        if len(known) == _MOST_RESPONSES:
            raise Refusal.of(Code.invalid_request, f"Items of at most {_MOST_RESPONSES} responses.", param=where)
        turn = await _turn(parts, response, key)
        items = [] if isinstance(turn, str) else [*listed(run_of(response), turn.asked), *turn.said]
        known[response] = {item["id"]: item for item in items if isinstance(item.get("id"), str)}
    found = known[response].get(name)
    if found is None:
        words = f"Item with id '{name[:_SHOWN]}' not found, or its response is no longer kept. Send the item itself."
        raise Refusal.of(Code.not_found, words, param=where)
    return found


class _Turn(NamedTuple):
    asked: Sequence[Item]
    said: Sequence[Item]


async def _turn(parts: Parts, response: str, key: KeyRecord) -> _Turn | str:
    """A turn to go on from, or why it is none."""
    found = await find(parts, run_of(response), key)
    if found is None or not is_response(found):
        return "not found, or it is no longer kept"
    asked = await asked_in(parts, found)
    if not asked.get("store"):
        return "was not stored"
    said: Item = await object_of(parts, found) if ended(found) else {"status": "in_progress"}
    if said["status"] not in _ANSWERED:
        return f"has no answer to go on from: it is {said['status']}"
    return _Turn(asked["input"], said["output"])


def _not_found(words: str) -> Refusal:
    code = "previous_response_not_found"
    return Refusal(Failure(code=Code.invalid_request.value, public_code=code, message=words, param=PREVIOUS))


def listed(run: str, items: Sequence[Item]) -> list[Item]:
    """The items as they are shown: a message with parts, and each with an id: its own, or ours where it has none or
    that of an item before it, since pages go by ids."""
    tail, taken = run.replace("-", ""), set[str]()
    shown: list[Item] = []
    for number, item in enumerate(items):
        own = item.get("id")
        name = own if isinstance(own, str) and own not in taken else f"item_{tail}_{number}"
        taken.add(name)
        shown.append({**_whole(item), "id": name})
    return shown


def _whole(item: Item) -> Item:
    if item.get("type", "message") != "message":
        return item
    content = item["content"]
    if isinstance(content, str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        content = [{"type": kind, "text": content, **({"annotations": []} if kind == "output_text" else {})}]
    return {"type": "message", "status": "completed", **item, "content": content}


def page_of(items: Sequence[Item], limit: int, descending: bool, after: str | None) -> Mapping[str, Any]:
    """A page of a list. after: the id of the last item of the page before. Refusal(invalid_request) when there is no
    such item."""
    ordered = list(reversed(items)) if descending else list(items)
    if after is not None:
        places = [number for number, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise Refusal.of(Code.invalid_request, f"There is no item '{after}' in this input.", param="after")
        ordered = ordered[places[0] + 1 :]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(ordered) > limit,
    }
