"""HTTP to a stored request, and what is pushed about it to HTTP. It believes its clients: a benchmark's load is one."""

import asyncio
import os
from typing import Any, cast

import httptools

from bench.bare import lua
from runtime.address import Address
from runtime.wire import Wire, connect

_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNK, _LAST = b"%x\r\n%b\r\n", b"0\r\n\r\n"


class Desk:
    """The runs that somebody waits for at this door."""

    def __init__(self) -> None:
        self._waiting: dict[str, Client] = {}
        self._steps: lua.Steps

    async def open(self, url: str) -> None:
        """Connect: once for the steps, once for the pushes."""
        address = Address.parse(url)
        wire, pushes = await connect(address), await connect(address, Wire(push=self._pushed))
        await wire.send(("AUTH", address.password))
        await pushes.send(("HELLO", "3", "AUTH", "default", address.password))
        pushes.post(("SSUBSCRIBE", lua.PUSH))
        self._steps = await lua.Steps(wire).load()

    def accept(self, client: "Client", body: bytes) -> str:
        """A new run's id; it is on its way to the server."""
        run = os.urandom(8).hex()
        self._waiting[run] = client
        self._steps.take(lua.ACCEPT, (lua.run_key(run), lua.STREAM), (run, body))
        return run

    def forget(self, run: str) -> None:
        self._waiting.pop(run, None)

    def _pushed(self, message: list[Any]) -> None:
        if message[0] != b"smessage":
            return
        heads, _, data = message[2].partition(b"\n")
        at = 0
        for head in heads.decode().split(" ") if heads else ():
            run, size, kind = head.split(":")
            piece, at = data[at : at + int(size)], at + int(size)
            if client := self._waiting.get(run):
                client.hear(piece, last=kind == "end")
                if kind == "end":
                    self.forget(run)


class Client(asyncio.Protocol):
    """One connection, one request at a time on it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._run, self._streams, self._begun = "", False, False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._desk.forget(self._run)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._streams, self._begun = b'"stream":true' in self._body.replace(b" ", b""), False
        self._run = self._desk.accept(self, self._body)

    def hear(self, piece: bytes, *, last: bool) -> None:
        """The next bytes of its answer."""
        if not self._streams:
            self._transport.write(_JSON % (len(piece), piece))
            return
        out = _CHUNK % (len(piece), piece) if piece else b""
        self._transport.write((b"" if self._begun else _SSE) + out + (_LAST if last else b""))
        self._begun = True


async def serve(url: str, port: int) -> None:
    """The door on `port` of the loopback, until it is ended."""
    desk = Desk()
    await desk.open(url)
    server = await asyncio.get_running_loop().create_server(lambda: Client(desk), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()
