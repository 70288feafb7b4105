"""Scopes: what a key may be used for. They don't imply one another; a key holds one or both.

inference   the /v1 routes that start or watch work
admin       the operator's API
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.records import ADMIN, INFERENCE, KeyRecord

SCOPES = frozenset({INFERENCE, ADMIN})


def holds(record: KeyRecord, scope: str) -> bool:
    """Whether the key was given `scope`."""
    return scope in record.scopes


def unknown_scopes(wanted: Iterable[str]) -> list[str]:
    """Those of `wanted` that are no scopes, sorted; for whoever creates keys."""
    return sorted(set(wanted) - SCOPES)
