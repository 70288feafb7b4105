"""The clients of a simulated house: what each of them asked and what it saw, byte for byte."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ingress.cycle import TRANSPORT
from ingress.presence import sign_off
from ingress.reading import events_behind
from ingress.routes.streams import numbers
from schemas.errors import Refusal, Unavailable
from tests.simulation.processes import Door

_NUMBERED = re.compile(rb"(?:id: (\d+)\n)?data: (.*)", re.DOTALL)


@dataclass(eq=False)
class Seen:
    """What one client saw. ended: the answer was closed in order; cut: its door died; left: it went by itself."""

    door: str
    ended: bool = False
    cut: bool = False
    left: bool = False
    left_at: float = 0.0
    events: list[bytes] = field(default_factory=list)

    def leave(self, now: float) -> None:
        """Hang up. now: loop seconds."""
        raise NotImplementedError

    @property
    def over(self) -> bool:
        return self.ended or self.cut or self.left

    @property
    def done(self) -> bool:
        """Whether the stream said itself that it was whole."""
        return bool(self.events) and self.events[-1] == b"[DONE]"

    @property
    def code(self) -> str:
        """The code of the error it ended with, "" without one. A code that OpenAI does not know reads as its type."""
        said = error_of(self.events[-1]) if self.events else None
        return str(said.get("code") or said.get("type")) if said else ""


@dataclass(eq=False)
class Asker(Seen):
    """A client that sends a request. number: its own; tag: of the order that it sends; once: its
    Idempotency-Key, under which others may send the same order; wish: its x-headrace-on-disconnect; both "" = none.
    run: known once the head of its answer is here; replayed: the head said that the run was there before."""

    number: int = 0
    tag: int = 0
    once: str = ""
    wish: str = ""
    replayed: bool = False
    stream: bool = True
    status: int = 0
    run: str = ""
    raw: bytes = b""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self, now: float) -> None:
        """Hang up."""
        if not self.over:
            self.left, self.left_at = True, now
        self.gone.set()

    async def ask(self, door: Door, token: str, prompt: str) -> None:
        """Send the request through the real handler. Runs in the door's process."""
        body = json.dumps({"model": "m", "stream": self.stream, "messages": [{"role": "user", "content": prompt}]})
        said = [{"type": "http.request", "body": body.encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if said:
                return said.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.hear(message)

        said_of_it = {
            "authorization": f"Bearer {token}",
            "x-client-request-id": str(self.number),
            "idempotency-key": self.once,
            "x-headrace-on-disconnect": self.wish,
        }
        headers = [(name.encode(), value.encode()) for name, value in said_of_it.items() if value]
        line = {TRANSPORT: Line(self)} if self.number % 2 else {}
        await door.work({"type": "http", "headers": headers, "extensions": line}, receive, send)

    def hear(self, message: dict[str, Any]) -> None:
        """A part of the answer arrives, unless nobody is there."""
        if self.over:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            found = dict(message["headers"])
            self.run = found.get(b"x-headrace-run", b"").decode()
            self.replayed = b"idempotent-replayed" in found
            return
        self.raw += message.get("body", b"")
        if not message.get("more_body"):
            self.ended = True
        self.events = self._events()

    def _events(self) -> list[bytes]:
        if not self.stream or self.status != 200:
            return [self.raw] if self.ended else []
        blocks = self.raw.split(b"\n\n")[:-1]
        return [block[6:] for block in blocks if block.startswith(b"data: ")]


class Line:
    """What the handler sees of a client's connection: chunks can be written on it."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def is_closing(self) -> bool:
        return self._asker.over

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self._asker.gone.set()

    def write(self, chunk: bytes) -> None:
        size, _, rest = chunk.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2, "one whole chunk"
        self._asker.hear({"type": "http.response.body", "body": rest[:-2], "more_body": True})


@dataclass(eq=False)
class Resumer(Seen):
    """A client that reads a run again behind event `after`. refused: there is nothing to read, says the door."""

    run: str = ""
    after: int = 0
    refused: bool = False
    numbers: list[int] = field(default_factory=list)
    hang_up: Callable[[], object] = lambda: None

    async def read(self, door: Door) -> None:
        """As GET /v1/streams/<run>. Runs in the door's process."""
        try:
            await self._read(door)
        except (Refusal, Unavailable):
            self.refused = True
        self.ended = not self.over

    async def _read(self, door: Door) -> None:
        status = await door.door.status(self.run)
        if status is None:
            self.refused = True
            return
        if status.state == "ended" and self.after >= status.sequence:
            return
        watch = await door.door.attach(self.run, self.after)
        self.hang_up = lambda: door.spawn(sign_off(watch))
        async for event in events_behind(watch, self.after, numbers(status.stream, self.after), door.health):
            if not self.over:
                self._hear(event)

    def leave(self, now: float) -> None:
        """Hang up."""
        if not self.over:
            self.left, self.left_at = True, now
            self.hang_up()

    def _hear(self, event: bytes) -> None:
        found = _NUMBERED.fullmatch(event.strip(b"\n"))
        assert found is not None, event
        self.events.append(found[2])
        if found[1]:
            self.numbers.append(int(found[1]))


def error_of(event: bytes) -> dict[str, Any] | None:
    """The error that an event or a body carries."""
    if not event.startswith(b"{"):
        return None
    said = json.loads(event).get("error")
    return said if isinstance(said, dict) else None
