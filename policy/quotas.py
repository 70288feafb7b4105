"""What of a key is limited, and under which name its reservations stand.

One function for the room that reserves and for the one that settles, so that they can't name a scope differently.
"""

from __future__ import annotations

from schemas.ports import Scope
from schemas.records import KeyRecord


def scopes_of(record: KeyRecord) -> tuple[Scope, ...]:
    """The limited scopes of a key; () for a key without limits, which then costs no reservation at all."""
    if record.requests_per_minute <= 0 and record.concurrency <= 0:
        return ()
    return (
        Scope(
            name=f"key:{record.key_id}",
            requests_per_minute=max(record.requests_per_minute, 0),
            concurrency=max(record.concurrency, 0),
        ),
    )
