"""/lag: the backlog of every consumer group, live runs and dead letters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from console.admin.parts import Given

routes = APIRouter()


@routes.get("/lag")
async def lag(parts: Given) -> dict[str, Any]:
    """lag: not read yet. pending: read, not finished. oldest_ms: age of the oldest of both."""
    groups = await parts.inspector.lags()
    return {
        "data": [asdict(group) for group in groups],
        "live": await parts.inspector.live(),
        "dead": await parts.inspector.dead(),
    }
