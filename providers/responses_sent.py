"""What went out of a response that broke off: read from the run's own stream, for the record and for its last event.
Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from providers.openai_continue import Told
from providers.responses_events import event
from providers.responses_object import load
from schemas.errors import Failure

#: An event that adds to a text -> the field of its part, or of its item, that grows.
_GROWS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "text",
    "response.function_call_arguments.delta": "arguments",
}
_NOT_CONTINUED = "a response is more than text: it is not continued"


def read(sent: bytes) -> Told:
    """What the client has; never to be continued. Each delta is at least one token."""
    deltas = sum(type.endswith(".delta") for type, _ in _events(sent))
    return Told(head={"object": "response"}, pieces=deltas, odd=_NOT_CONTINUED)


def failed(sent: bytes, number: int, failure: Failure) -> bytes:
    """The last event of a response whose engine failed: response.failed with what was said. number: its own.
    ValueError when the events do not begin a response."""
    response: dict[str, Any] | None = None
    output: dict[int, dict[str, Any]] = {}
    for type, data in _events(sent):
        found = load(data)
        if type == "response.created":
            response = found["response"]
        _add(output, found)
    if response is None:
        raise ValueError("the events do not begin with a response")
    error = {
        "code": "server_error",
        "message": failure.message,
        "param": failure.param,
        "type": failure.public_code or failure.code,
    }
    said = [output[at] for at in sorted(output)]
    fields = {"response": {**response, "status": "failed", "error": error, "output": said}}
    return event("response.failed", number, fields)


def _events(sent: bytes) -> Iterator[tuple[str, bytes]]:
    """Type and data of each event."""
    for block in sent.split(b"\n\n"):
        name, _, data = block.partition(b"\n")
        if data:
            yield name.removeprefix(b"event: ").decode(), data.removeprefix(b"data: ")


def _add(output: dict[int, dict[str, Any]], found: Mapping[str, Any]) -> None:
    """What an event adds to the items; one that broke off is incomplete."""
    at, type = found.get("output_index"), found["type"]
    if at is None:
        return
    if type in ("response.output_item.added", "response.output_item.done"):
        item = found["item"]
        output[at] = {**item, "status": "incomplete"} if item.get("status") == "in_progress" else item
        return
    item = output.get(at)
    if item is None:
        return
    if type == "response.content_part.added":
        item.setdefault("content", []).append(found["part"])
    elif type in _GROWS:
        part = item["content"][found["content_index"]] if "content_index" in found else item
        part[_GROWS[type]] += found["delta"]
