"""A scripted transport: what an engine does, written down as steps. For tests, examples and simulations.

    FakeTransport([[Head(200, EVENT_STREAM), Piece(b"data: {}\\n\\n"), Delay(0.5), Cut()], [Refuse()]])

Each call of `open` takes the next script; the last one is used for ever. What was asked is kept in `calls`.
A script that ends without Cut or Hang ended its answer properly. Time comes from the clock alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from base.clock import Clock
from providers.errors import (
    Broken,
    ConnectFailed,
    FirstByteTimeout,
    IdleTimeout,
    TotalTimeout,
    UpstreamFault,
    too_long,
)
from providers.ports import Every, Sink, Timeouts

EVENT_STREAM = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Refuse:
    """No connection. Only as the first step."""


@dataclass(frozen=True, slots=True)
class Head:
    """The answer's status and headers (names in lower case)."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: EVENT_STREAM)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the body that arrive together."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds of silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends inside the answer."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Silence for ever."""


Step = Refuse | Head | Piece | Delay | Cut | Hang
Script = Sequence[Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as the engine saw it."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    private: bool


class FakeTransport:
    """Implements providers.ports.Transport from scripts. `open_now`: answers that nobody has closed yet."""

    def __init__(self, scripts: Sequence[Script], clock: Clock) -> None:
        self._scripts = list(scripts)
        self._clock = clock
        self.calls: list[Call] = []
        self.open_now = 0

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        *,
        private: bool = False,
        method: str = "POST",
    ) -> FakeResponse:
        """See providers.ports.Transport."""
        self.calls.append(Call(url=url, headers=dict(headers), body=body, private=private))
        script = list(self.script_of(url))
        if isinstance(script[0], Refuse):
            raise ConnectFailed("no connection: refused by the script")
        response = FakeResponse(self, script, timeouts, self._clock)
        self.open_now += 1
        try:
            await response.begin()
        except BaseException:
            response.close()
            raise
        return response

    def script_of(self, url: str) -> Script:
        """The script of the next call."""
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]

    async def close(self) -> None:
        """Nothing to free."""


class FakeResponse:
    """One scripted answer."""

    def __init__(self, home: FakeTransport, script: list[Step], timeouts: Timeouts, clock: Clock) -> None:
        self._home, self._steps, self._timeouts, self._clock = home, script, timeouts, clock
        self._started = clock.monotonic()
        self._begun = False
        self._closed = asyncio.Event()
        self.status, self.headers = 0, dict[str, str]()

    async def begin(self) -> None:
        """Play up to the head."""
        while True:
            match self._steps.pop(0) if self._steps else Cut():
                case Head(status, headers):
                    self.status, self.headers = status, dict(headers)
                    return
                case Delay(seconds):
                    await self._silence(seconds)
                case Hang():
                    await self._silence(None)
                case _:
                    raise Broken("the engine closed the connection without an answer")

    async def read(self) -> bytes:
        """See providers.ports.UpstreamResponse. A cancelled read leaves its step where it was."""
        while not self._closed.is_set():
            match self._steps[0] if self._steps else None:
                case Piece(data):
                    self._steps.pop(0)
                    self._begun = True
                    return data
                case Delay(seconds):
                    await self._silence(seconds)
                    self._steps.pop(0)
                case Hang():
                    await self._silence(None)
                case None:
                    self.close()
                    return b""
                case _:
                    self.close()
                    raise Broken("the engine's answer ended before it was complete")
        if self._steps:
            raise Broken("the call was closed")
        return b""

    async def whole(self, most: int) -> bytes:
        """See providers.ports.UpstreamResponse."""
        taken = list[bytes]()
        while piece := await self.read():
            taken.append(piece)
            if sum(map(len, taken)) > most:
                raise too_long(most)
        return b"".join(taken)

    async def pour(self, sink: Sink, every: Every | None = None) -> bool:
        """See providers.ports.UpstreamResponse."""
        while piece := await self.read():
            if not sink(piece):
                return False
        return True

    async def drain(self, seconds: float) -> None:
        """See providers.ports.UpstreamResponse."""
        self.close()

    def close(self) -> None:
        """See providers.ports.UpstreamResponse."""
        if not self._closed.is_set():
            self._closed.set()
            self._home.open_now -= 1

    async def _silence(self, seconds: float | None) -> None:
        """Pass the time, or as much of it as the limits allow and then the fault (None = for ever)."""
        limit, fault = self._limit()
        if seconds is not None and seconds <= limit:
            await self._clock.sleep(seconds)
            return
        await self._clock.sleep(max(limit, 0.0))
        self.close()
        raise fault

    def _limit(self) -> tuple[float, UpstreamFault]:
        """Seconds that this silence may last, and what it is then."""
        spent = self._clock.monotonic() - self._started
        left = self._timeouts.total_s - spent
        if self._begun and self._timeouts.idle_s <= left:
            return self._timeouts.idle_s, IdleTimeout("the engine was silent inside its answer")
        first = self._timeouts.connect_s + self._timeouts.first_byte_s - spent
        if not self._begun and first <= left:
            return first, FirstByteTimeout("the engine sent nothing")
        return left, TotalTimeout("the call took too long")
