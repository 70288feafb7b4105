"""What this room needs from below: a place for the record (storage.ports.Requests, its twin in storage.memory)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.records import FactRecord, RequestRecord


class Record(Protocol):
    """Where facts and requests are kept for good."""

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        """All or nothing; what is there already stays as it is. The runs whose row was new. Unavailable: nothing is
        known to be written, come again with the same."""
        ...
