"""What strangers send to a door: requests that are no HTTP or nearly, heads and bodies beyond all bounds, and clients
that are slow on purpose. Beside them others are served as ever.

Promises: one answer below 500 to each, also to what could be read as two requests; no trace of our code in it; a p99 of
the others within a tenth of what it is without.
"""

import asyncio
import contextlib
import gzip
import json
import os
import random
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from bench import windows
from bench.client import Plan
from bench.machine import ROOT
from bench.windows import Lengths, Others

FULL = Lengths(100, 6, 1, 7)
CHAT = "/v1/chat/completions"
#: Connections that send a byte now and then, of each kind.
SLOW = 100
_PATIENCE_S = 5.0
_READY, _GO, _REST = b"ready\n", b"go\n", b"rest\n"  # what the attacking process and this one say to each other
_ANSWER = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)")


@dataclass(frozen=True, slots=True)
class Target:
    """A door, a key for it, and a model that it serves."""

    host: str
    port: int
    key: str
    model: str

    def head(self, *lines: str, request: str = f"POST {CHAT} HTTP/1.1", host: str = "host: door") -> bytes:
        """A head with the key."""
        whole = [request, *([host] if host else ()), f"authorization: Bearer {self.key}", *lines]
        return ("\r\n".join(whole) + "\r\n\r\n").encode("latin1")

    def body(self) -> bytes:
        """A request that is well."""
        return json.dumps({"model": self.model, "messages": [{"role": "user", "content": "hi"}]}).encode()

    def post(self, body: bytes, *lines: str) -> bytes:
        """A whole request."""
        return self.head(f"content-length: {len(body)}", *lines) + body


@dataclass(frozen=True, slots=True)
class Reply:
    """statuses: of every final answer on the connection. text: all that came."""

    statuses: tuple[int, ...]
    text: bytes

    def wrong(self, legal: bool) -> str:
        """What is not as promised; "" when all is. legal: 2xx is an answer too."""
        if len(self.statuses) != 1:
            return f"{len(self.statuses)} answers: {self.statuses}"
        if b"Traceback" in self.text or b".py" in self.text:
            return "our code shows in the answer"
        low = 200 if legal else 400
        return "" if low <= self.statuses[0] < 500 else f"status {self.statuses[0]}"


Send = Callable[[Target], bytes]


def _framing(*lines: str, rest: bytes = b"0\r\n\r\n") -> Send:
    """The body's length told in a doubtful way, and a second request hidden behind it."""
    return lambda to: to.head(*lines) + rest + b"GET /v1/models HTTP/1.1\r\nhost: door\r\n\r\n"


def _request(request: str, *lines: str) -> Send:
    return lambda to: to.head(*lines, request=request)


def _body(body: bytes, *lines: str) -> Send:
    return lambda to: to.post(body, *lines)


#: Never to be served.
REFUSED: Mapping[str, Send] = {
    "two lengths": _framing("content-length: 3", "content-length: 5"),
    "a list of lengths": _framing("content-length: 5, 6"),
    "length and chunks": _framing("content-length: 5", "transfer-encoding: chunked"),
    "chunks and length": _framing("transfer-encoding: chunked", "content-length: 5"),
    "chunks spelt otherwise": _framing("transfer-encoding: xchunked"),
    "chunks before another coding": _framing("transfer-encoding: chunked, identity"),
    "chunks twice": _framing("transfer-encoding: chunked", "transfer-encoding: identity"),
    "chunks after a tab and a letter": _framing("transfer-encoding:\x0bchunked"),
    "a signed length": _framing("content-length: +5"),
    "a negative length": _framing("content-length: -5"),
    "a hexadecimal length": _framing("content-length: 0x5"),
    "a length with a blank inside": _framing("content-length: 1 0"),
    "a length beyond 64 bits": _framing("content-length: 99999999999999999999"),
    "a blank before the colon": _framing("content-length : 5"),
    "a folded header": _framing("x-folded: a\r\n transfer-encoding: chunked"),
    "a chunk size beyond 64 bits": _framing("transfer-encoding: chunked", rest=b"FFFFFFFFFFFFFFFFF\r\n"),
    "a negative chunk": _framing("transfer-encoding: chunked", rest=b"-1\r\nx\r\n0\r\n\r\n"),
    "a chunk that is no number": _framing("transfer-encoding: chunked", rest=b"zz\r\nx\r\n0\r\n\r\n"),
    "a chunk longer than it says": _framing("transfer-encoding: chunked", rest=b"1\r\nxyz\r\n0\r\n\r\n"),
    "a NUL in a header": _request(f"POST {CHAT} HTTP/1.1", "x-nul: a\x00b"),
    "a NUL in the path": _request("GET /v1/mod\x00els HTTP/1.1"),
    "a lone CR in a header": _request(f"POST {CHAT} HTTP/1.1", "x-cr: a\rcontent-length: 5"),
    "a name of a header with a NUL": _request(f"POST {CHAT} HTTP/1.1", "x\x00y: 1"),
    "HTTP/0.9": lambda to: b"GET /v1/models\r\n\r\n",
    "HTTP/2 without asking": lambda to: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": _request("GET /v1/models HTTP/9.9"),
    "TLS": lambda to: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "CONNECT": _request("CONNECT engine.example:443 HTTP/1.1"),
    "TRACE": _request("TRACE /v1/models HTTP/1.1"),
    "a method with a NUL": _request("GE\x00T /v1/models HTTP/1.1"),
    "10,000 headers": _request("GET /v1/models HTTP/1.1", *(f"x-{n}: {n}" for n in range(10_000))),
    "a header of 100 kB": _request("GET /v1/models HTTP/1.1", "x-long: " + "x" * 100_000),
    "a path of 100 kB": _request("GET /" + "a" * 100_000 + " HTTP/1.1"),
    "a path that climbs": _request("GET /v1/../admin/v1/keys HTTP/1.1"),
    "a path that climbs in disguise": _request("GET /v1/streams/%2e%2e%2f%2e%2e%2fadmin HTTP/1.1"),
    "a path of bad UTF-8": _request("GET /v1/models/%ff%fe HTTP/1.1"),
    "a path with a coded NUL": _request("GET /v1/models/%00 HTTP/1.1"),
    "a place beyond all numbers": _request(f"GET /v1/streams/x?after={'9' * 400} HTTP/1.1"),
    "a key of control characters": lambda to: to.head().replace(b"Bearer ", b"Bearer \x01\x02"),
    "a key of 60 kB": lambda to: to.head().replace(b"Bearer ", b"Bearer " + b"k" * 60_000),
    "no JSON": _body(b"{"),
    "a list": _body(b"[]"),
    "a number": _body(b"1e999"),
    "bad UTF-8": _body(b'{"model":"\xff\xfe","messages":[]}'),
    "a lone surrogate": _body(b'{"model":"\\ud800","messages":[]}'),
    "nothing": _body(b""),
    "100,000 open lists": _body(b"[" * 100_000),
    "100,000 objects in each other": _body(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "millions of tiny values": _body(b'{"x":[' + b"[]," * 1_000_000 + b"1]}"),
    "a body that is compressed": _body(gzip.compress(b"{}"), "content-encoding: gzip"),
    "21 MiB": _body(b'{"x":"' + b"x" * (21 * 1024 * 1024) + b'"}'),
    "21 MiB announced": _framing(f"content-length: {21 * 1024 * 1024}", rest=b""),
    "a priority beyond all numbers": lambda to: to.post(to.body(), "x-headrace-priority: " + "9" * 1_000),
}
#: Odd, and within what HTTP allows: served or refused.
ODD: Mapping[str, Send] = {
    "HTTP/1.0": _request("GET /v1/models HTTP/1.0"),
    "an absolute address": _request("GET http://elsewhere.example/v1/models HTTP/1.1", "connection: close"),
    "two hosts": _request("GET /v1/models HTTP/1.1", "host: other", "connection: close"),
    "no host": lambda to: to.head("connection: close", request="GET /v1/models HTTP/1.1", host=""),
    "line feeds alone": lambda to: to.head("connection: close", request="GET /v1/models HTTP/1.1").replace(b"\r", b""),
    "an expectation": lambda to: to.post(to.body(), "expect: 100-continue", "connection: close"),
    "an unknown expectation": lambda to: to.post(to.body(), "expect: a miracle", "connection: close"),
    "a huge idempotency key": lambda to: to.post(to.body(), "idempotency-key: " + "k" * 60_000, "connection: close"),
    "an odd deadline": lambda to: to.post(to.body(), "x-stainless-read-timeout: 1e999", "connection: close"),
    "an odd trace": lambda to: to.post(to.body(), "traceparent: 00-zz-\xff-01", "connection: close"),
    "an offer of HTTP/2": lambda to: to.post(to.body(), "connection: upgrade, close", "upgrade: h2c"),
    "twice the same length": lambda to: to.post(to.body(), f"content-length: {len(to.body())}", "connection: close"),
    "three requests ahead": lambda to: to.post(to.body()) * 3,
}


async def ask(to: Target, sent: bytes) -> Reply:
    """Send it all, hear everything until the door closes or is silent."""
    reader, writer = await asyncio.open_connection(to.host, to.port)
    heard = b""
    try:
        writer.write(sent)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while piece := await reader.read(65536):
                    heard += piece
                    if _whole(heard) and b"connection: close" not in sent:
                        break
    finally:
        writer.transport.abort()
    return Reply(tuple(int(found) for found in _ANSWER.findall(heard)), heard)


def _whole(heard: bytes) -> bool:
    """Whether a whole answer has come, in which more could only be a second one. Each of ours names its length."""
    head, found, body = heard.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(found and length and len(body) >= int(length[1]) and b"connection: close" not in head.lower())


@dataclass(slots=True)
class Row:
    """What was seen. wrong: answers that are not as promised. sent: hostile requests without those of slow clients."""

    others: Others = field(default_factory=Others)
    sent: int = 0
    wrong: list[str] = field(default_factory=list)

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        return [*self.others.broken(), *sorted(set(self.wrong))]

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        return str(self.sent), str(2 * SLOW), str(len(self.wrong)), *self.others.cells()


HEAD = ("hostile", "slow clients", "wrong answers", *windows.HEAD)


async def run(to: Target, plan: Plan, lengths: Lengths) -> Row:
    """The windows, with everything hostile in each second one."""
    row = Row()
    async with _strangers(to) as process:
        row.others = await windows.compare(plan, lambda: _attack(process, row), lengths)
    return row


@contextlib.asynccontextmanager
async def _strangers(to: Target) -> AsyncIterator[Process]:
    """A process of their own, so that their work does not delay the others'; it has begun, and waits to be let go."""
    words = (sys.executable, "-m", "bench.hostile", to.host, str(to.port), to.key, to.model)
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    try:
        assert process.stdout and await process.stdout.readline() == _READY
        yield process
    finally:
        process.kill()
        await process.wait()


async def _attack(process: Process, row: Row) -> None:
    """Until cancelled."""
    assert process.stdin and process.stdout
    process.stdin.write(_GO)
    try:
        while line := (await process.stdout.readline()).decode().strip():
            row.sent += 1
            row.wrong += [line] if line != "as promised" else []
    finally:
        process.stdin.write(_REST)


async def _stranger(to: Target) -> None:
    """Attacks between _GO and _REST."""
    os.nice(19)  # strangers have machines of their own: here they get what the others leave
    loop, heard = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(heard), sys.stdin)
    print(_READY.decode(), end="", flush=True)
    attack: asyncio.Task[None] | None = None
    while line := await heard.readline():
        if attack is not None:
            attack.cancel()
            await asyncio.wait({attack})
        attack = asyncio.create_task(_everything(to)) if line == _GO else None


async def _everything(to: Target) -> None:
    """Each hostile request in turn, for ever, beside clients that are slow on purpose; a line for each answer."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(SLOW):
            tasks.create_task(_slowly(to, to.head(request="GET /v1/models HTTP/1.1"), number))
            tasks.create_task(_slowly(to, to.post(to.body()), number, at_once=200))
        while True:
            for legal, named in ((False, REFUSED), (True, ODD)):
                for name, send in named.items():
                    wrong = (await ask(to, send(to))).wrong(legal)
                    print(f"{name}: {wrong}" if wrong else "as promised", flush=True)
                    await asyncio.sleep(0.02)


async def _slowly(to: Target, sent: bytes, number: int, at_once: int = 20) -> None:
    """A byte every second or so, until the door has had enough; then again."""
    await asyncio.sleep(number / SLOW)
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(to.host, to.port)
            try:
                writer.write(sent[:at_once])
                for place in range(at_once, len(sent) - 1):
                    await asyncio.sleep(random.uniform(0.8, 1.2))
                    writer.write(sent[place : place + 1])
                    await writer.drain()
            finally:
                writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(_stranger(Target(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])))
