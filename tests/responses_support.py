"""What tests of Responses share: a question, an engine's chunks, and what the official client makes of the events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from base.clock import SystemClock
from base.ids import SystemRandom, mint_run_id
from providers.ports import Question
from providers.responses_chunks import ResponseStream
from schemas.routes import RESPONSES

USER = {"role": "user", "content": "hi"}
_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def question(*, stream: bool = False, **fields: Any) -> Question:
    """A request that became a run."""
    body = {"model": "public", "input": [USER], "stream": stream, **fields}
    return Question(
        run=mint_run_id(SystemClock(), SystemRandom(), 0),
        route=RESPONSES,
        model="public",
        body=orjson.dumps(body),
        stream=stream,
        accepted_ms=1_700_000_000_123,
    )


def delta(finish: str | None = None, **said: Any) -> str:
    """One chunk of a chat stream."""
    choice = {"index": 0, "delta": said, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "engine-7b", "choices": [choice]})


def call(index: int, arguments: str | None = None, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    """A piece of a tool call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"index": index, **({"id": id, "type": "function"} if id else {}), "function": function}


def told(stream: ResponseStream, chunks: Iterable[str]) -> bytes:
    """What goes out of a whole stream; the counts of events are checked on the way."""
    out = b""
    for chunk in chunks:
        piece = stream.take(chunk.encode())
        assert piece is None or piece.count(b"\n\n") == stream.told
        out += piece or b""
    last = stream.ending()
    assert last.count(b"\n\n") == stream.told
    return out + last


def events_of(out: bytes) -> list[dict[str, Any]]:
    """The events, each valid for the official client, named as it says, numbered from 0 without a gap."""
    found = []
    for number, block in enumerate(out.removesuffix(b"\n\n").split(b"\n\n")):
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode() and event["sequence_number"] == number
        _EVENTS.validate_python(event, strict=False)
        found.append(event)
    return found


def heard(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the official client's own accumulator has gathered before the last event, as a response."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    snapshot: Any = None
    for event in events:
        parsed = _EVENTS.validate_python(event)
        state.handle_event(parsed)
        snapshot = state._ResponseStreamState__current_snapshot  # type: ignore[attr-defined]
    gathered: dict[str, Any] = snapshot.to_dict(warnings=False)
    return gathered


def valid(response: dict[str, Any]) -> Response:
    """The response as the official client reads it, every field checked."""
    return Response.model_validate(response)
