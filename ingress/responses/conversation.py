"""Earlier turns: the items in front of a request that names the response before it, and the pages of an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingress.parts import Parts
from ingress.reading import find
from ingress.responses.asked import PREVIOUS
from ingress.responses.shown import asked_in, ended, is_response, object_of
from schemas.errors import Code, Failure, Refusal
from schemas.records import KeyRecord
from schemas.responses import run_of

Item = dict[str, Any]

_ANSWERED = ("completed", "incomplete")


async def earlier(parts: Parts, response: str, key: KeyRecord) -> list[Item]:
    """What was asked and answered up to and in that response. Refusal(previous_response_not_found) when it is not
    there, not the tenant's, not kept with its input, or has no answer."""
    found = await find(parts, run_of(response), key)
    if found is None or not is_response(found):
        raise _not_found(f"Previous response with id '{response}' not found, or it is no longer kept.")
    asked = await asked_in(parts, found)
    if not asked.get("store"):
        raise _not_found(f"Previous response with id '{response}' was not stored.")
    said = await object_of(parts, found) if ended(found) else {"status": "in_progress"}
    if said["status"] not in _ANSWERED:
        raise _not_found(f"Previous response with id '{response}' has no answer to go on from: it is {said['status']}.")
    return [*asked["input"], *said["output"]]


def _not_found(words: str) -> Refusal:
    code = "previous_response_not_found"
    return Refusal(Failure(code=Code.invalid_request.value, public_code=code, message=words, param=PREVIOUS))


def listed(run: str, items: Sequence[Item]) -> list[Item]:
    """The items as they are shown: each with an id, a message with parts."""
    tail = run.replace("-", "")
    return [{"id": f"item_{tail}_{number}", **_whole(item)} for number, item in enumerate(items)]


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
