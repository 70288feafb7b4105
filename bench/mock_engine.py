"""A scripted OpenAI-compatible engine: `python -m bench.mock_engine --port N`.

    POST /v1/chat/completions, /v1/completions    unary and stream; usage chunk with stream_options.include_usage
    POST /v1/embeddings                           vectors of 8 numbers, floats or base64
    GET  /v1/models, /health
    GET  /_mock/stats                             requests, streams begun, finished, aborted, tokens
    GET  /_mock/set?ttft_ms=&itl_ms=&tokens=&err= for the requests that follow; answers the settings
    GET  /_mock/ledger[?id=WORD]                  what was sent for each named request, attempt by attempt

Each token carries the moment it was written (stamps.py); faults are asked for in the prompt (script.py). One thread.
"""

import argparse
import asyncio
import signal
import sys
from dataclasses import asdict
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import httptools
import orjson

from bench import script, wire
from bench.answer import Answer
from bench.engine_state import Engine, Settings
from bench.loop import run_fast


class EngineProtocol(asyncio.Protocol):
    """One client connection: a parser in front, at most one answer behind."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body, self._ledger_id = b"", b"", ""
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass of it
        self._engine.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer:
            self._answer.leave()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.send(wire.failure(400, f"this is not HTTP/1.1: {error}"))
            self.hang_up()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self._answer:
            self._answer.resume()

    # What an answer calls.

    def send(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)

    def hang_up(self) -> None:
        if self._transport:
            self._transport.close()

    def answered(self) -> None:
        self._answer = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url, self._body, self._ledger_id = b"", b"", ""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-mock-id":
            self._ledger_id = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url.startswith((b"/v1/chat/completions", b"/v1/completions")):
            self._generate()
        elif self._url.startswith(b"/v1/embeddings"):
            self.send(embed(self._body))
        else:
            self.send(page(self._engine, self._url.decode("latin-1")))

    def _generate(self) -> None:
        if self._answer:
            self.send(wire.failure(400, "one request at a time on a connection"))
            self.hang_up()
            return
        try:
            asked = script.read(self._body, self._ledger_id)
        except ValueError as error:
            self.send(wire.failure(400, f"cannot read the request: {error}"))
            return
        asked, attempt = self._engine.admit(asked)
        if asked.err:
            attempt.state, attempt.status = "err", asked.err
            self._engine.stats.faults += 1
            self.send(wire.failure(asked.err, "asked for in the prompt"))
            return
        answer = Answer(self, self._engine, asked, attempt)
        self._answer = None if answer.over else answer


def embed(body: bytes) -> bytes:
    """The answer to an embeddings request."""
    try:
        asked = orjson.loads(body)
        texts = script.texts_of(asked["input"])
    except (ValueError, KeyError, TypeError) as error:
        return wire.failure(400, f"cannot read the request: {error}")
    return wire.embeddings(str(asked.get("model", "mock")), texts, asked.get("encoding_format") == "base64")


def page(engine: Engine, url: str) -> bytes:
    """Every answer to a GET."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    match parts.path:
        case "/v1/models":
            model = {"id": "mock", "object": "model", "created": wire.CREATED, "owned_by": "bench"}
            return wire.answer(200, {"object": "list", "data": [model]})
        case "/health" | "/":
            return wire.answer(200, {"status": "ok"})
        case "/_mock/stats":
            return wire.answer(200, asdict(engine.stats))
        case "/_mock/set":
            return _set(engine, query)
        case "/_mock/ledger":
            wanted = [query["id"]] if "id" in query else list(engine.ledger)
            found = {name: [asdict(one) for one in engine.ledger.get(name, ())] for name in wanted}
            return wire.answer(200, found)
    return wire.failure(404, f"no such page: {parts.path}")


def _set(engine: Engine, query: dict[str, str]) -> bytes:
    try:
        return wire.answer(200, asdict(engine.configure(query)))
    except ValueError as error:
        return wire.failure(400, str(error))


async def serve(engine: Engine, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT; says on standard output where it listens (port 0 takes a free one)."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(lambda: EngineProtocol(engine), host, port, backlog=4096)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    print(f"mock engine on http://{host}:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await stop.wait()
    server.close()
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.mock_engine", description="A scripted OpenAI-compatible engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100, help="0 takes a free one")
    parser.add_argument("--ttft-ms", type=float, default=0.0, help="milliseconds to the first token")
    parser.add_argument("--itl-ms", type=float, default=0.0, help="milliseconds between tokens")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of an answer without max_tokens")
    return parser


def main() -> int:
    """Parse the command line and serve."""
    given = parser().parse_args()
    engine = Engine(Settings(given.ttft_ms, given.itl_ms, given.tokens))
    return run_fast(serve(engine, given.host, given.port))


if __name__ == "__main__":
    sys.exit(main())
