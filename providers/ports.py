"""What a transport and a dialect promise to those who call engines.

Transports: httptools_transport.HttptoolsTransport, fake.FakeTransport. Dialects: dialects.dialect_of says which one a
run needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from schemas.events import Usage


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Four limits of one call, in seconds.

    connect: name, TCP and TLS. first_byte: from the sent request to the first byte of the answer's body. idle: between
    two pieces of the body, counted only while somebody waits for the next. total: the whole call."""

    connect_s: float = 5.0
    first_byte_s: float = 120.0
    idle_s: float = 30.0
    total_s: float = 600.0


#: Takes a piece of a body; whether it wants more now. It must not give the loop away.
Sink = Callable[[bytes], bool]
#: Says how many seconds apart the pieces of a fast answer are wanted, now; 0 = each at once.
Every = Callable[[], float]


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Somebody must call `close`; nothing else frees its connection early."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Ask with names in lower case; of several the first is given."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body as they arrived, b"" after the last.

        A cancelled read loses nothing: the next one goes on. FirstByteTimeout, IdleTimeout, TotalTimeout, Broken."""
        ...

    async def whole(self, most: int) -> bytes:
        """What is left of the body, to its end. The faults of `read`; BadResponse when it is longer than `most` bytes.
        Cancelling it loses what has come."""
        ...

    async def pour(self, sink: Sink, every: Every | None = None) -> bool:
        """Give each piece of the body to `sink` in the turn of the loop in which it arrives, until it wants no more
        (False) or the body has ended (True). Cancelling it loses nothing. The faults of `read`, and what `sink` raises.

        every: pieces that come faster than this may be read so often only; None = in the turn in which they arrive."""
        ...

    async def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for the end of the body, so that the connection can be used again; then close."""
        ...

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else cut it at once. Idempotent."""
        ...


class Transport(Protocol):
    """Opens calls. One per process; closing it cuts what is still open."""

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        *,
        private: bool = False,
        method: str = "POST",
    ) -> UpstreamResponse:
        """Send the request, return when the answer's head is here (any status; redirects are not followed).

        private: a loopback or private address is meant. ConnectFailed, FirstByteTimeout, TotalTimeout, Broken,
        BadResponse. Cancelling it cuts the connection."""
        ...

    async def close(self) -> None:
        """Cut everything and free the pool."""
        ...


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asks of an engine. body: the client's normalised JSON as the guards left it. model: the public name.
    stream: the answer is relayed as a stream. show_usage: the client asked for the usage chunk itself. accepted_ms:
    when it became a run, ms since the epoch."""

    run: str
    route: str
    model: str
    body: bytes
    stream: bool
    show_usage: bool = False
    accepted_ms: int = 0


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A unary answer. usage: None when the engine gave none; text_bytes: what an estimate can then use."""

    body: bytes
    usage: Usage | None
    finish_reason: str
    text_bytes: int


class EngineStream(Protocol):
    """An engine's events on their way to the client. usage: the engine's counts once they came. pieces: engine events
    that carried generated text, each at least one token of the engine. done: the engine has said its last word. told:
    how many events of the client stand in what `take` or `ending` gave last."""

    usage: Usage | None
    finish_reason: str
    pieces: int
    done: bool
    told: int

    def take(self, data: bytes) -> bytes | None:
        """What one event of the engine is for the client: whole events, or None when it is not for its eyes.

        BadResponse when it cannot be understood, EngineError when it is an error."""
        ...

    def ending(self, ended_ms: int = 0) -> bytes:
        """The last events. ended_ms: now, ms since the epoch, for an answer that says so. Broken when the engine's
        stream ended before its answer was complete, BadResponse when it carried none."""
        ...


class Dialect(Protocol):
    """How the engines of one kind are asked, and how their answers become the client's. Pure."""

    def path(self, question: Question) -> str:
        """Behind the endpoint's base address."""
        ...

    def request(self, question: Question, upstream_model: str) -> bytes:
        """The engine's request. upstream_model: what it calls the model, "" = the public name. Untranslatable."""
        ...

    def answer(self, question: Question, body: bytes, ended_ms: int = 0) -> Answered:
        """A unary answer for the client. ended_ms: as in `EngineStream.ending`. BadResponse, EngineError."""
        ...

    def stream(self, question: Question) -> EngineStream:
        """For a streamed answer."""
        ...
