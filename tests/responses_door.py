"""Responses at the door, for tests: events and objects as a router tells them, and raw requests for the routes."""

from __future__ import annotations

from typing import Any

import orjson

from schemas.frames import DATA, END
from schemas.responses import response_id, response_object
from schemas.routes import RESPONSES
from tests.ingress_support import Gateway, PlayedRun, RawAnswer, head, raw


def event(number: int, kind: str, **fields: Any) -> bytes:
    """One event as it goes out."""
    data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def whole(run: PlayedRun, text: str, status: str = "completed") -> dict[str, Any]:
    """The object of an answered run."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    name = f"msg_{run.run.replace('-', '')}_0"
    message = {"type": "message", "id": name, "role": "assistant", "status": status, "content": [part]}
    shown = response_object(run.run, 7_000, "tiny", orjson.loads(run.new.body))
    return {**shown, "status": status, "output": [message]}


def begun(run: PlayedRun) -> bytes:
    """The first event."""
    return event(0, "response.created", response=response_object(run.run, 7_000, "tiny", orjson.loads(run.new.body)))


def delta(number: int, text: str) -> bytes:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    return event(number, "response.output_text.delta", delta=text, **place)


def spoken(number: int) -> bytes:
    """The two events before the first word of a message."""
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    added = event(number, "response.output_item.added", output_index=0, item=message)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return added + event(number + 1, "response.content_part.added", part=part, **place)


async def tell(run: PlayedRun, *texts: str) -> list[bytes]:
    """A whole stream, one frame per event; what it was."""
    told = [begun(run), *(delta(number, text) for number, text in enumerate(texts, 1))]
    for piece in told:
        await run.put(DATA, piece)
    told.append(event(len(told), "response.completed", response=whole(run, "".join(texts))))
    await run.put(END, told[-1])
    return told


async def answer(run: PlayedRun) -> None:
    """A script: streamed or whole, as asked, saying what was asked last."""
    said = orjson.loads(run.new.body)["input"][-1]["content"]
    text = said if isinstance(said, str) else said[-1]["text"]
    if run.new.accepted.stream:
        await tell(run, *text)
    else:
        await run.answer(orjson.dumps(whole(run, text)))


async def ask(up: Gateway, *lines: str, token: str = "", **fields: Any) -> RawAnswer:
    """POST /v1/responses."""
    body = orjson.dumps({"model": "tiny", "input": "hi", **fields})
    return await raw(up.port, head("POST", RESPONSES, token or up.token, *lines, length=len(body)) + body)


async def call(up: Gateway, method: str, path: str, token: str = "") -> RawAnswer:
    """A route of one response, by run or id, `path` behind it."""
    named, slash, rest = path.partition("/")
    name, mark, query = named.partition("?")
    name = name if name.startswith("resp_") else response_id(name)
    return await raw(
        up.port, head(method, f"{RESPONSES}/{name}{mark}{query}{slash}{rest}", token or up.token, length=0)
    )


def body_of(found: RawAnswer) -> Any:
    return orjson.loads(found.body)
