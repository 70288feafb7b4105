"""What tests of engines and the router share: a cleared run in memory, and an HTTP server that plays fake scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from base.alarm import Alarm
from base.clock import Clock, SystemClock
from base.crypto import KeyRing, Signer, Verifier, digest, new_ring_key
from base.ids import SystemRandom, mint_run_id
from providers.fake import Cut, Delay, Hang, Head, Piece, Script
from schemas.errors import Failure, OwnerLost
from schemas.events import RequestAccepted, Terminal
from schemas.frames import DATA, END, ERROR, decode_failure
from schemas.outcomes import Decided, Delivery
from schemas.ports import Stored
from schemas.records import EndpointRecord
from schemas.routes import CHAT, RESPONSES
from schemas.verdicts import EDITS, PASS, Edit, Grant, Verdict, seal_verdict
from state.memory import MemoryBreakers, MemoryLatencies
from workers.router.health import Peers
from workers.router.settings import RouterSettings

RING = KeyRing([new_ring_key(SystemRandom(), "t1")])
VERIFIER = Verifier(RING)
CLOCK = SystemClock()


def sse(*data: str) -> bytes:
    """Events in the form engines send."""
    return "".join(f"data: {one}\n\n" for one in data).encode()


def chunk(text: str = "", *, finish: str | None = None, model: str = "engine-7b", **more: object) -> str:
    """One chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return orjson.dumps(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice], **more}
    ).decode()


def usage_chunk(prompt: int = 7, completion: int = 2, model: str = "engine-7b") -> str:
    """The last chunk of a stream that was asked for usage."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return orjson.dumps({"id": "c1", "model": model, "choices": [], "usage": counts}).decode()


def completion(text: str = "hello", model: str = "engine-7b", **more: object) -> bytes:
    """A unary answer with usage."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counts = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    return orjson.dumps({"id": "c1", "model": model, "choices": [choice], "usage": counts, **more})


GOOD_STREAM = sse(chunk("he"), chunk("llo"), chunk(finish="stop"), usage_chunk(), "[DONE]")


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame as the lease was given it."""

    kind: str
    payload: bytes
    events: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class MemoryLease:
    """A run whose frames stay here. `lost` makes every write fail as after a theft; one that is not `claimed` yet ends
    once it is `told`."""

    accepted: RequestAccepted
    body: bytes
    verdicts: Mapping[str, bytes]
    deadline_s: float = 60.0
    epoch: int = 1
    sequence: int = 0
    lost: bool = False
    flush_s: float = 0.0
    cancelled: Alarm = field(default_factory=Alarm)
    sent: list[Sent] = field(default_factory=list)
    fact: Terminal | None = None
    run: str = ""
    by: str = "client"
    accepted_ms: int = 1_700_000_000_123
    claimed: bool = True
    held: int = 0  # frames that waited for the claim
    answered: Alarm = field(default_factory=Alarm)  # its claim is here, or it is lost

    def __post_init__(self) -> None:
        self.run = self.accepted.run

    def tell(self, *, claimed: bool) -> None:
        """What came of its claim."""
        self.claimed, self.lost = claimed, not claimed
        if self.lost:
            self.cancelled.set()
        self.answered.set()

    async def confirmed(self) -> None:
        if not self.claimed:
            await self.answered.wait()
        if self.lost:
            raise OwnerLost(self.run)

    async def flush(
        self, payload: bytes, events: int, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        self._write(DATA, payload, events, headers)
        await CLOCK.sleep(self.flush_s)

    def offer(
        self, payload: bytes, events: int, told: Stored, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        if self.lost:
            told(False)
            return
        if not self.claimed:
            self.held += 1
            self.answered.tell(lambda: self.offer(payload, events, told, headers, said=said))
            return
        self._write(DATA, payload, events, headers)
        asyncio.get_running_loop().call_later(self.flush_s, told, True)

    async def delivered(self) -> bytes | None:
        return b"".join(one.payload for one in self.sent)

    async def end(
        self, kind: str, payload: bytes, events: int, fact: Terminal, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.confirmed()
        assert self.fact is None, "a run ends once"
        self._write(kind, payload, events, headers)
        self.fact = fact

    def _write(self, kind: str, payload: bytes, events: int, headers: Mapping[str, str] | None) -> None:
        if self.lost:
            raise OwnerLost(self.run)
        assert self.claimed and self.fact is None, "nothing is written before the claim or after the end"
        if kind == DATA or (kind == END and self.accepted.stream):
            assert payload.count(b"\n\n") == events and payload.endswith(b"\n\n"), "whole events only"
        else:
            assert events == 1
        self.sent.append(Sent(kind, payload, events, dict(headers or {})))
        self.sequence += events

    @property
    def text(self) -> bytes:
        """Everything the client got, but an error."""
        return b"".join(one.payload for one in self.sent if one.kind != ERROR)

    @property
    def failure(self) -> Failure:
        """The error the run ended with."""
        assert self.sent[-1].kind == ERROR
        return decode_failure(self.sent[-1].payload)


def signed(family: str, verdict: Verdict) -> bytes:
    """A verdict as its family stores it."""
    return seal_verdict(Signer(RING, family), verdict)


def cleared_run(
    *,
    stream: bool = True,
    edits: Sequence[tuple[str, int, int, str]] = (),
    deadline_s: float = 60.0,
    pool: str = "pool",
    route: str = CHAT,
    **fields: object,
) -> MemoryLease:
    """A run that authorization and the rules family let pass; `fields` go into the request."""
    run = mint_run_id(CLOCK, SystemRandom(), 0)
    said = {"input" if route == RESPONSES else "messages": [{"role": "user", "content": "hi"}]}
    request = {"model": "public", **said, "stream": stream, **fields}
    body = orjson.dumps(request)
    place = digest(body)
    grant = Grant(tenant="t", key_id="k", pool=pool, limit_requests=60, remaining_requests=59, reset_requests_ms=1500)
    own = tuple(
        Edit(digest=place, pointer=pointer, start=start, end=end, replacement=word, kind="email")
        for pointer, start, end, word in edits
    )
    verdicts = {
        "authorization": signed(
            "authorization",
            Verdict(run=run, family="authorization", outcome=PASS, policy="1", body_digest=place, grant=grant),
        ),
        "rules": signed(
            "rules",
            Verdict(run=run, family="rules", outcome=EDITS if own else PASS, policy="1", body_digest=place, edits=own),
        ),
    }
    accepted = RequestAccepted(
        run=run, route=route, model="public", stream=stream, key_id="k", secret_mac="", mac_kid="t1",
        body_digest=place, body_bytes=len(body), door="d", families=("authorization", "rules"), prompt_tokens=11,
    )  # fmt: skip
    return MemoryLease(accepted, body, verdicts, deadline_s)


class NoCredentials:
    """Local engines need none."""

    def reveal(self, endpoint: EndpointRecord) -> str:
        return ""


def let_in(delivery: Delivery, **grant: Any) -> Decided:
    """The verdict of an authorization that lets everybody pass."""
    verdict = Verdict(
        run=delivery.run,
        family="authorization",
        outcome=PASS,
        policy="1",
        body_digest=delivery.event.body_digest,
        grant=Grant(key_id="k", **grant),
    )
    return Decided(verdict)


def endpoint(name: str = "e1", url: str = "http://127.0.0.1:9/v1", **fields: object) -> EndpointRecord:
    """An endpoint of the pool `pool` on this machine."""
    given: dict[str, object] = {"upstream_model": "engine-7b", "private": True, **fields}
    return EndpointRecord(endpoint=name, deployment="d1", pool="pool", model="public", url=url, **given)  # type: ignore[arg-type]


def alone(settings: RouterSettings | None = None, clock: Clock = CLOCK) -> Peers:
    """What a router shares with nobody but those who are given the same."""
    limits = (settings or RouterSettings()).breaker.limits()
    return Peers(breakers=MemoryBreakers(clock, limits), latencies=MemoryLatencies(clock))


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until `true()` holds; fails after `seconds`."""
    end = CLOCK.monotonic() + seconds
    while not true():
        assert CLOCK.monotonic() < end, "it never came true"
        await CLOCK.sleep(0.005)


class ScriptServer:
    """Plays the scripts of providers.fake over real HTTP/1.1. gone: connections whose client left inside an answer."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = list(scripts)
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.gone = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        self.requests.append((head, await reader.readexactly(length)))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        left = asyncio.ensure_future(reader.read(1))
        try:
            return await self._play(script, writer, left)
        finally:
            left.cancel()

    async def _play(self, script: Script, writer: asyncio.StreamWriter, left: asyncio.Future[bytes]) -> bool:
        for step in script:
            match step:
                case Head(status, headers):
                    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                    writer.write(f"HTTP/1.1 {status} X\r\n{lines}transfer-encoding: chunked\r\n\r\n".encode())
                case Piece(data):
                    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                case Delay(seconds):
                    await asyncio.wait({left}, timeout=seconds)
                case Hang():
                    await left
                case Cut():
                    writer.transport.abort()
                    return False
            await writer.drain()
            if left.done():
                self.gone += 1
                return False
            await CLOCK.sleep(0)
        left.cancel()  # the next byte belongs to the next request
        await asyncio.wait({left})
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def script_server(scripts: Sequence[Script]) -> AsyncIterator[ScriptServer]:
    """A server on a free loopback port for the length of the block."""
    player = ScriptServer(scripts)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(player.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    player.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield player
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
