"""What a transport promises to those who call engines. Implementations:
httptools_transport.HttptoolsTransport and fake.FakeTransport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Four limits of one call, in seconds.

    connect: name, TCP and TLS. first_byte: from the sent request to the first byte of the answer's body. idle: between
    two pieces of the body, counted only while somebody waits for the next. total: the whole call."""

    connect_s: float = 5.0
    first_byte_s: float = 120.0
    idle_s: float = 30.0
    total_s: float = 600.0


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

    async def read_within(self, seconds: float) -> bytes | None:
        """The same, or None when nothing came in that time."""
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
