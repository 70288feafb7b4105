"""What the door's tests stand on: a scripted Door whose runs a test plays by hand, and a real server in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import orjson
from openai import AsyncOpenAI

from base.clock import SystemClock
from base.crypto import KeyRing, RingKey
from base.health import Health
from base.ids import SystemRandom, mint_run_id
from ingress.app import Ingress
from ingress.parts import Parts
from ingress.serve import IngressServer
from ingress.settings import ServerSettings
from ingress.stalls import Stalls
from policy.api_keys import ENTROPY_BYTES, Minted, mint
from policy.durability import StrictRuns
from runtime.asyncapi import document
from runtime.leaving import CANCELLED
from runtime.topology import load
from schemas.errors import Code, Failure, Refusal, Unavailable
from schemas.frames import DATA, END, ERROR, Frame, encode_failure
from schemas.ports import Archive, Direct, Door, NewRun, RunStatus
from schemas.records import ArchiveRecord, KeyRecord, ModelRecord
from state.memory import MemoryCatalog, MemoryKeys

PATIENCE_S = 20.0


@dataclass
class PlayedRun:
    """One accepted run. The test sends its frames; `left` has the reasons of watchers that signed off."""

    new: NewRun
    frames: list[Frame] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    closed: int = 0
    watching: int = 0
    handed: int = 0
    tenant: str = ""
    cancelled: list[str] = field(default_factory=list)
    deleted: bool = False
    keeps_body: bool = True
    deaf: bool = False  # it is told to stop and goes on
    broken: Exception | None = None
    waited: asyncio.Event = field(default_factory=asyncio.Event)  # for scripts that wait for their test
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    watches: list[PlayedWatch] = field(default_factory=list)

    @property
    def run(self) -> str:
        return self.new.accepted.run

    async def put(self, kind: str, payload: bytes, events: int = 1, headers: dict[str, str] | None = None) -> None:
        last = self.frames[-1].sequence if self.frames else 0
        frame = Frame(epoch=1, sequence=last + events, kind=kind, events=events, payload=payload, headers=headers or {})
        async with self.changed:
            self.frames.append(frame)
            for watch in self.watches:
                watch.hand_over(frame)
            self.changed.notify_all()

    async def data(self, *texts: str, headers: dict[str, str] | None = None) -> None:
        """One frame with a chunk for each text."""
        await self.put(DATA, b"".join(chunk(text) for text in texts), len(texts), headers)

    async def done(self) -> None:
        await self.put(END, chunk("", finish="stop") + b"data: [DONE]\n\n", 2)

    async def answer(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        await self.put(END, body, 1, headers)

    async def fail(self, failure: Failure, headers: dict[str, str] | None = None) -> None:
        await self.put(ERROR, encode_failure(failure), 1, headers)

    async def break_with(self, error: Exception | None) -> None:
        """What the next look of every watch raises, Unavailable when its time is over; None mends it."""
        async with self.changed:
            self.broken = error
            self.changed.notify_all()


class PlayedWatch:
    """Implements schemas.ports.Watch over a PlayedRun."""

    def __init__(self, played: PlayedRun, after: int) -> None:
        self.run, self.replayed = played.run, False
        self._played, self._after, self._at = played, after, 0
        self._open = True
        self.direct: Direct | None = None
        played.watching += 1
        played.watches.append(self)

    def hand_over(self, frame: Frame) -> None:
        """The newest frame, to a client that takes it at once and lacks nothing before it."""
        lacks = len(self._played.frames) - self._at
        if self.direct is not None and frame.kind == DATA and lacks == 1 and self._open and self.direct.ready():
            self.direct.put(frame)
            self._at += 1
            self._played.handed += 1

    async def next(self, timeout: float) -> Frame | None:
        played = self._played
        try:
            async with asyncio.timeout(timeout), played.changed:
                while True:
                    while self._at < len(played.frames):
                        frame = played.frames[self._at]
                        self._at += 1
                        if frame.sequence > self._after or frame.terminal:
                            played.handed += 1
                            return frame
                    if played.broken is not None and not isinstance(played.broken, Unavailable):
                        raise played.broken
                    await played.changed.wait()
        except TimeoutError:
            if played.broken is not None:  # the store is away
                raise played.broken from None
            return None

    async def leave(self, reason: str = "left") -> None:
        ended = self._at > 0 and self._played.frames[self._at - 1].terminal
        if self._open and not ended:
            self._played.left.append(reason)
        self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._played.watches.remove(self)
            self._played.watching -= 1
            self._played.closed += 1


Script = Callable[[PlayedRun], Awaitable[None]]


class PlayedDoor:
    """Implements schemas.ports.Door. script: played for every accepted run, in a task."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.runs: dict[str, PlayedRun] = {}
        self.refusal: Exception | None = None
        self.forgotten: set[str] = set()  # runs that Redis no longer has
        self.before: PlayedRun | None = None  # what a request under an Idempotency-Key meets
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = asyncio.Condition()

    def mint(self) -> str:
        return mint_run_id(SystemClock(), SystemRandom(), 0)

    async def accept(self, new: NewRun) -> PlayedWatch:
        if self.refusal is not None:
            raise self.refusal
        if new.once is not None and self.before is not None:
            again = PlayedWatch(self.before, 0)
            again.replayed = True
            return again
        played = PlayedRun(new)
        watch = PlayedWatch(played, 0)
        async with self._accepted:
            self.runs[played.run] = played
            self._accepted.notify_all()
        if self.script is not None:
            task = asyncio.ensure_future(self.script(played))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return watch

    async def attach(self, run: str, after: int) -> PlayedWatch:
        if run not in self.runs:
            raise Refusal.of(Code.not_found, "no such run")
        return PlayedWatch(self.runs[run], after)

    def replay(self, kept: ArchiveRecord, after: int) -> PlayedWatch:
        return PlayedWatch(self.runs[kept.run], after)

    async def status(self, run: str) -> RunStatus | None:
        played = self.runs.get(run)
        if played is None or run in self.forgotten:
            return None
        last = played.frames[-1] if played.frames else None
        return RunStatus(
            run=run,
            state="ended" if last and last.terminal else "running",
            outcome="",
            key_id=played.new.accepted.key_id,
            tenant=played.tenant,
            stream=played.new.accepted.stream,
            sequence=last.sequence if last else 0,
            epoch=1,
            times={"accepted": 7_000},
            detail={"deleted": "1"} if played.deleted else {},
            accepted=played.new.accepted,
        )

    async def body(self, run: str | ArchiveRecord) -> bytes | None:
        played = self.runs.get(run if isinstance(run, str) else run.run)
        return played.new.body if played is not None and played.keeps_body else None

    async def told(self, run: str | ArchiveRecord) -> AsyncIterator[bytes]:
        for frame in self.runs[run if isinstance(run, str) else run.run].frames:
            if frame.kind != ERROR:
                yield frame.payload

    async def forget(self, run: str) -> bool:
        played = self.runs[run]
        played.deleted = bool(played.frames and played.frames[-1].terminal)
        return played.deleted

    async def cancel(self, run: str, by: str) -> bool:
        played = self.runs[run]
        played.cancelled.append(by)
        if not played.deaf:
            await played.fail(CANCELLED)
        return True

    async def first(self) -> PlayedRun:
        """The first accepted run, as soon as there is one."""
        async with asyncio.timeout(PATIENCE_S), self._accepted:
            await self._accepted.wait_for(lambda: bool(self.runs))
        return next(iter(self.runs.values()))


@dataclass
class Gateway:
    """A running door."""

    door: PlayedDoor
    parts: Parts
    app: Ingress
    server: IngressServer
    token: str
    key: KeyRecord
    keys: MemoryKeys
    ring: KeyRing

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str | None = None) -> AsyncOpenAI:
        """The official client, without retries."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token or self.token, max_retries=0, timeout=20)

    async def other_key(self, **changes: object) -> str:
        """The token of one more key."""
        minted, record = new_key(self.ring, **changes)
        await self.keys.project(record)
        return minted.token


def new_key(ring: KeyRing, **changes: object) -> tuple[Minted, KeyRecord]:
    minted = mint(SystemRandom().bytes(ENTROPY_BYTES), ring)
    shown = minted.credential
    fields: dict[str, object] = {
        "key_id": shown.key_id,
        "tenant": "acme",
        "name": "test",
        "secret_mac": shown.secret_mac,
        "mac_kid": shown.mac_kid,
        **changes,
    }
    return minted, KeyRecord(**fields)  # type: ignore[arg-type]


def new_parts(
    door: Door,
    settings: ServerSettings,
    keys: MemoryKeys,
    ring: KeyRing,
    name: str = "door-1",
    strict: StrictRuns | None = None,
    archive: Archive | None = None,
) -> Parts:
    clock = SystemClock()
    models = (ModelRecord(name="tiny", pool="tiny", created=7), ModelRecord(name="org/big:1", pool="big"))
    return Parts(
        asyncapi=lambda: document(load()),
        name=name,
        settings=settings,
        door=door,
        keys=keys,
        catalog=MemoryCatalog(models),
        ring=ring,
        clock=clock,
        health=Health("ingress"),
        stalls=Stalls(clock, settings.stall_limit),
        families=("authorization", "rules"),
        strict=strict or StrictRuns(),
        archive=archive,
    )


@contextlib.asynccontextmanager
async def gateway(
    script: Script | None = None,
    strict: StrictRuns | None = None,
    archive: Archive | None = None,
    **changes: object,
) -> AsyncIterator[Gateway]:
    """A door on a free port, stopped at the end. changes: of its settings."""
    settings = ServerSettings(**{"port": 0, "drain_limit": 1, "idle_timeout": 5, **changes})
    ring = KeyRing([RingKey("k1", b"1" * 32)])
    minted, record = new_key(ring)
    door, keys = PlayedDoor(script), MemoryKeys([record])
    parts = new_parts(door, settings, keys, ring, strict=strict, archive=archive)
    app = Ingress(parts)
    server = IngressServer(app, settings, parts.health, parts.clock)
    await server.start()
    try:
        yield Gateway(door, parts, app, server, minted.token, record, keys, ring)
    finally:
        await server.stop()


def chunk(text: str, finish: str | None = None) -> bytes:
    """One chat completion chunk as an SSE event."""
    return b"data: " + chunk_json(text, finish) + b"\n\n"


def chunk_json(text: str, finish: str | None = None) -> bytes:
    delta = {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return orjson.dumps(
        {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": [choice]}
    )


def completion(text: str) -> bytes:
    """A unary answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return orjson.dumps({"id": "c1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]})


def chat_body(**changes: object) -> bytes:
    """A minimal chat request."""
    return orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **changes})


@dataclass
class RawAnswer:
    """An HTTP answer as it came over the socket. clean: the body ended as HTTP says it must."""

    status: int
    headers: dict[str, str]
    body: bytes
    clean: bool

    @property
    def error(self) -> dict[str, object]:
        found: dict[str, object] = orjson.loads(self.body)["error"]
        return found


def head(method: str, path: str, token: str | None, *lines: str, length: int | None = None) -> bytes:
    """The head of a request."""
    wanted = [f"{method} {path} HTTP/1.1", "host: test", *lines]
    if token is not None:
        wanted.append(f"authorization: Bearer {token}")
    if length is not None:
        wanted.append(f"content-length: {length}")
    return "\r\n".join([*wanted, "", ""]).encode("latin1")


def post(token: str | None, body: bytes, *lines: str) -> bytes:
    """A whole chat request."""
    return head("POST", "/v1/chat/completions", token, *lines, length=len(body)) + body


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def raw(port: int, request: bytes) -> RawAnswer:
    """Send bytes, read one answer."""
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> RawAnswer:
    async with asyncio.timeout(PATIENCE_S):
        status, headers = await read_head(reader)
        if headers.get("transfer-encoding") == "chunked":
            body, clean = await _read_chunks(reader)
        else:
            body, clean = await reader.readexactly(int(headers.get("content-length", 0))), True
    return RawAnswer(status, headers, body, clean)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split(" ")[1]), {name.lower(): value for name, value in pairs}


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    body = b""
    try:
        while piece := await read_chunk(reader):
            body += piece
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return body, False
    return body, True


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of a chunked body, b"" at its end."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.005)
