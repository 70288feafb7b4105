"""Chats over plain sockets: the end of a body is told from a cut, which clients with more comfort blur."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httptools

from bench.faults.said import Said

#: Seconds to wait for an ingress that is being started again, and between two tries.
_DOOR_S, _AGAIN_S = 40.0, 0.05
_REPLAYS = 8

OnEvent = Callable[[Said], None]


@dataclass(slots=True)
class Reply:
    """One HTTP reply, fed with bytes. data: what each event carried, with its id where it had one, else 0."""

    status: int = 0
    run: str = ""
    body: bytes = b""
    data: list[tuple[int, bytes]] = field(default_factory=list)
    ended: bool = False
    events: bool = False
    on_data: Callable[[bytes], None] = lambda data: None
    parser: Any = None

    def feed(self, piece: bytes) -> None:
        """More of it, status line first."""
        self.parser = self.parser or httptools.HttpResponseParser(self)
        self.parser.feed_data(piece)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-headrace-run":
            self.run = value.decode()
        elif name.lower() == b"content-type":
            self.events = value.startswith(b"text/event-stream")

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        self.body += piece
        if self.events:
            *blocks, self.body = self.body.split(b"\n\n")
            for block in blocks:
                self._block(block)

    def on_message_complete(self) -> None:
        self.ended = True

    def _block(self, block: bytes) -> None:
        lines = block.split(b"\n")
        said = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        if said:
            number = next((int(line[3:]) for line in lines if line.startswith(b"id:")), 0)
            self.data.append((number, b"\n".join(said)))
            self.on_data(self.data[-1][1])


async def ask(base_url: str, head: Mapping[str, str], body: Any, said: Said, patience: float, on: OnEvent) -> None:
    """One chat, read until it ends, is cut, or the patience is over."""

    def heard(data: bytes) -> None:
        said.run = reply.run
        said.take(data)
        on(said)

    reply = Reply(on_data=heard)
    said.sent_at = monotonic()
    said.late = not await _try(base_url, "POST", "/v1/chat/completions", head, body, reply, patience)
    said.run, said.status, said.clean = reply.run, reply.status, reply.ended
    said.cut = not reply.ended and not said.late
    said.ended_at = monotonic()
    if reply.ended and not reply.events:
        said.take(reply.body)


async def replay(
    base_url: str,
    key: str,
    run: str,
    after: int,
    patience: float = 90,
    on_data: Callable[[bytes], None] = lambda data: None,
) -> Reply:
    """The events of a run behind `after`, at whichever ingress listens; what is cut is tried again."""
    reply = Reply()
    for _ in range(_REPLAYS):
        reply, path = Reply(on_data=on_data), f"/v1/streams/{run}?after={after}"
        await _try(base_url, "GET", path, {"authorization": f"Bearer {key}"}, None, reply, patience)
        if reply.ended and reply.status < 500:
            break
        await asyncio.sleep(_AGAIN_S * 10)
    return reply


async def _try(
    base_url: str, method: str, path: str, head: Mapping[str, str], body: Any, reply: Reply, patience: float
) -> bool:
    """One exchange; False when the patience was over first. What is broken off is left as it is."""
    with suppress(OSError, httptools.HttpParserError):
        try:
            async with asyncio.timeout(patience):
                await _exchange(base_url, method, path, head, body, reply)
        except TimeoutError:
            return False
    return True


async def _exchange(base_url: str, method: str, path: str, head: Mapping[str, str], body: Any, reply: Reply) -> None:
    address = urlsplit(base_url)
    reader, writer = await _connect(str(address.hostname), int(address.port or 80))
    payload = b"" if body is None else json.dumps(body).encode()
    lines = {"host": address.netloc, "content-length": str(len(payload)), **head}
    try:
        first = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(first.encode() + b"\r\n" + payload)
        while not reply.ended and (piece := await reader.read(65536)):
            reply.feed(piece)
    finally:
        writer.close()


async def door(base_url: str) -> None:
    """Wait until an ingress listens, for a client that does not."""
    address = urlsplit(base_url)
    with suppress(OSError):
        _, writer = await _connect(str(address.hostname), int(address.port or 80))
        writer.close()


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection; waits for an ingress that does not listen."""
    end = monotonic() + _DOOR_S
    while True:
        try:
            return await asyncio.open_connection(host, port)
        except OSError:
            if monotonic() > end:
                raise
            await asyncio.sleep(_AGAIN_S)
