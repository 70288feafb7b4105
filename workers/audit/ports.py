"""What this room needs from below: a place for the record (storage.ports.Requests) and for kept answers
(storage.ports.Archive), their twins in storage.memory; frames of ended runs (runtime.keeping)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.frames import StoredFrame
from schemas.records import ArchiveRecord, FactRecord, RequestRecord


class Record(Protocol):
    """Where facts and requests are kept for good."""

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        """All or nothing; what is there already stays as it is. The runs whose row was new. Unavailable: nothing is
        known to be written, come again with the same."""
        ...


class Held(Protocol):
    """What Redis has of ended runs."""

    async def frames(self, run: str) -> Sequence[StoredFrame]:
        """In order, sealed; empty when they are gone. Unavailable."""
        ...

    async def body(self, run: str, rewrite: Callable[[bytes], bytes] | None = None) -> bytes:
        """What was asked, rewritten, sealed; b"" when it is not to be kept, or gone. Unavailable; what `rewrite`
        raises."""
        ...

    async def let_go(self, run: str) -> bool:
        """They are kept elsewhere now. False = the client has deleted the answer. Once or often. Unavailable."""
        ...


class Kept(Protocol):
    """Where answers are kept."""

    async def keep(self, records: Sequence[ArchiveRecord], now_ms: int) -> frozenset[str]:
        """All or nothing; what is there already stays as it is. The runs that were new. Unavailable, as Record."""
        ...

    async def forget(self, tenant: str, run: str) -> bool:
        """Delete an answer; whether it was there. Unavailable."""
        ...
