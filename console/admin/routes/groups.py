"""/lag: the backlog of every consumer group, live runs and dead letters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from console.admin.parts import Given
from console.admin.shapes import like, listed
from ingress.documents.openapi import answer, operation
from runtime.inspect import GroupLag

routes = APIRouter(tags=["groups"])

Lag = like("Lag", GroupLag)


Lags = listed(Lag, live=int, dead=int)


_LAG = {
    "stream": "{0.178}:requests",
    "group": "rules",
    "length": 12,
    "lag": 3,
    "pending": 9,
    "oldest_ms": 40,
    "consumers": 1,
}


@routes.get(
    "/lag",
    response_model=Lags,
    summary="Show every group's backlog",
    openapi_extra=operation(answer({"data": [_LAG], "live": 12, "dead": 0})),
)
async def lag(parts: Given) -> dict[str, Any]:
    """lag: not read yet. pending: read, not finished. oldest_ms: age of the oldest of both. live: runs that have not
    ended. dead: dead letters."""
    groups = await parts.inspector.lags()
    return {
        "data": [asdict(group) for group in groups],
        "live": await parts.inspector.live(),
        "dead": await parts.inspector.dead(),
    }
