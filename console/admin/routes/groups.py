"""/lag: the backlog of every consumer group, live runs and dead letters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from console.admin.parts import Given
from console.admin.shapes import example, like, listed
from console.stack import room_of
from console.status import count_serving
from ingress.documents.openapi import answer, operation
from runtime.inspect import GroupLag

routes = APIRouter(tags=["groups"])

Lag = like("Lag", GroupLag, serving=int, dead=int)
Lags = listed(Lag, live=int, dead=int)

_LAG = example(
    GroupLag,
    Lag,
    stream="{0.178}:requests",
    group="rules",
    length=12,
    lag=3,
    pending=9,
    oldest_ms=40,
    consumers=1,
    serving=1,
    dead=0,
)


@routes.get(
    "/lag",
    response_model=Lags,
    summary="Show every group's backlog",
    openapi_extra=operation(answer({"data": [_LAG], "live": 12, "dead": 0})),
)
async def lag(parts: Given) -> dict[str, Any]:
    """lag: not read yet. pending: read, not finished. waiting: before a lane's gate, for a free slot. oldest_ms: age of
    the oldest of all. consumers: as Redis remembers them, killed ones too; serving: processes that are there. dead:
    dead letters of the group, and of all."""
    groups, dead = await parts.inspector.lags(), await parts.inspector.dead_by_group()
    processes = await parts.processes.list()
    return {
        "data": [
            {
                **asdict(group),
                "serving": count_serving(processes, room_of(group.group)),
                "dead": dead.get((group.stream, group.group), 0),
            }
            for group in groups
        ],
        "live": await parts.inspector.live(),
        "dead": await parts.inspector.dead(),
    }
