"""An engine that says exactly what a test wrote: a list of bytes and pauses for each chat request, over real TCP.

    engine.play(chunked(b"data: {...}\\n\\n", b"data: [DONE]\\n\\n"))   one reply, for the next chat request
    engine.play([HEAD, 0.2, b"...", CUT])                             bytes as they are, pauses in seconds, a cut

Every piece is a write of its own on a socket without Nagle's algorithm, so it reaches the gateway as a piece of its
own. Unplanned chat requests get `DEFAULT`. `requests` holds what the engine got, in order; GET /v1/models and /health
answer by themselves and are not counted.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Act(Enum):
    """What is not said but done."""

    CUT = "cut"  #: close the connection at once
    HANG = "hang"  #: say nothing more until the gateway leaves


CUT, HANG = Act.CUT, Act.HANG
Step = bytes | float | Act | threading.Event
Reply = Sequence[Step]

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS_END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass(slots=True)
class Got:
    """One request for work as the engine read it. left: the gateway closed the connection before the reply was over."""

    headers: Mapping[str, str]
    raw: bytes
    path: str
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes | float | Act | threading.Event) -> list[Step]:
    """A whole streamed reply; each bytes piece is a chunk of its own, with a breath between them."""
    steps: list[Step] = [STREAM_HEAD]
    for piece in pieces:
        steps += [0.01, chunk(piece)] if isinstance(piece, bytes) else [piece]
    return [*steps, CHUNKS_END]


def event(delta: Mapping[str, Any] | str | None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream, raw UTF-8 in it. delta: a text, the fields of a delta, or None for no choice at all."""
    choices: list[Any] = []
    if delta is not None:
        fields = {"content": delta} if isinstance(delta, str) else dict(delta)
        choices = [{"index": 0, "delta": fields, "finish_reason": finish}]
    value = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "engine-name",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def whole_stream(*deltas: Mapping[str, Any] | str, finish: str = "stop") -> list[Step]:
    """A good stream of these deltas with its usage."""
    return chunked(*[event(one) for one in deltas], event({}, finish), event(None, usage=USAGE), DONE)


def unary(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> list[Step]:
    """A reply of JSON (or of bytes as they are)."""
    payload = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    lines = {"content-type": "application/json", "content-length": str(len(payload)), **(headers or {})}
    head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return [head.encode() + b"\r\n" + payload]


def completion(text: str, **message: Any) -> dict[str, Any]:
    """The body of a good unary reply."""
    said = {"role": "assistant", "content": text, **message}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "engine-name",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def failure(status: int, **headers: str) -> list[Step]:
    """An error of the engine in OpenAI's shape."""
    error = {"message": "scripted", "type": "engine_says", "param": "temperature", "code": "engine_code"}
    return unary({"error": error}, status, headers)


DEFAULT = unary(completion("unplanned"))


class ScriptedEngine:
    """The engine as tests see it. Its loop runs in a thread of its own."""

    def __init__(self, plans: deque[Reply] | None = None, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.requests: list[Got] = []
        self._plans: deque[Reply] = deque() if plans is None else plans
        self._open: set[asyncio.Task[None]] = set()
        self.host, self.port = address

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    @property
    def last(self) -> Got:
        """The newest chat request."""
        return self.requests[-1]

    def play(self, *replies: Reply) -> None:
        """Plan replies for the chat requests that follow, one each."""
        self._plans.extend(replies)

    def forget(self) -> None:
        """Drop plans and requests; what is being said goes on."""
        self._plans.clear()
        self.requests.clear()

    async def serve(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Listen until told to stop."""
        server = await asyncio.start_server(self._connection, self.host, self.port, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read a request and answer it; whether the connection lives on."""
        first, headers, body = await _request(reader)
        if not first.startswith("POST"):
            models = {"object": "list", "data": [{"id": "engine-name", "object": "model"}]}
            writer.write(unary(models)[0])  # type: ignore[arg-type]
            await writer.drain()
            return True
        got = Got(headers, body, first.split()[1])
        self.requests.append(got)
        reply = self._plans.popleft() if self._plans else DEFAULT
        speaking = asyncio.create_task(_speak(reply, writer))
        listening = asyncio.create_task(_leaving(reader))
        await asyncio.wait({speaking, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not speaking.done():
            speaking.cancel()
            got.left.set()
            return False
        return speaking.result()


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return lines[0], headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def _leaving(reader: asyncio.StreamReader) -> None:
    """Until the peer has closed its side; reads nothing, so a next request stays whole."""
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def _speak(reply: Reply, writer: asyncio.StreamWriter) -> bool:
    for step in reply:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif step is CUT:
            return False
        elif step is HANG:
            await asyncio.Event().wait()
        elif isinstance(step, threading.Event):
            while not step.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        elif isinstance(step, float):
            await asyncio.sleep(step)
    return True


@contextmanager
def scripted(
    plans: deque[Reply] | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[ScriptedEngine]:
    """A scripted engine until the block ends; port 0: a free one. Engines with the same `plans` take turns at them."""
    engine, ready = ScriptedEngine(plans, address), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        loop.run_until_complete(engine.serve(ready.set, stop))
        loop.close()

    thread = threading.Thread(target=run, name="scripted engine", daemon=True)
    thread.start()
    assert ready.wait(30), "the scripted engine did not start"
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
