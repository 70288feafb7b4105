"""/requests/{run}/route, why a run went where it went; /routes/{model}, where the next one would go and why."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from console.admin.parts import Given
from console.admin.routes.requests import RunId, find_run
from console.admin.shapes import Shape, like
from ingress.documents.openapi import answer, fails, operation
from schemas.errors import Code
from schemas.events import Choice, Seen

routes = APIRouter(tags=["requests"])

Model = Annotated[str, Path(description="A model's public name.", examples=["hosted-large"])]
SeenEndpoint = like("SeenEndpoint", Seen)
Why = like("Why", Choice, seen=list[SeenEndpoint])  # type: ignore[valid-type]


class Route(Shape):
    """Where an ended run went. attempts: as recorded, each with `why` unless an older version wrote it."""

    run: str
    model: str
    endpoint: str
    outcome: str
    code: str
    attempts: Any


class RouteNow(Shape):
    """Where the next run of a model would go; endpoint "": nowhere."""

    model: str
    endpoint: str
    why: Why  # type: ignore[valid-type]


_SEEN = {
    "endpoint": "hosted-a",
    "state": "fit",
    "in_use": 3,
    "slots": 64,
    "weight": 1,
    "ttft_ms": 180,
    "peak_ms": 240,
    "price": 150_000,
}
_WHY = {"pool": "hosted-large", "strategy": "peak_ewma", "of": 1, "seen": [_SEEN]}
_ROUTE = {
    "run": "01a1fcc2-5e9b-7000-8d34-8839179968b9",
    "model": "hosted-large",
    "endpoint": "hosted-a",
    "outcome": "completed",
    "code": "",
    "attempts": [
        {"endpoint": "hosted-a", "started_ms": 1, "ended_ms": 261, "outcome": "ok", "status": 200, "why": _WHY}
    ],
}


@routes.get(
    "/requests/{run}/route",
    response_model=Route,
    summary="Explain where a request went",
    openapi_extra=operation(answer(_ROUTE), fails(Code.not_found)),
)
async def route_of(run: RunId, parts: Given) -> dict[str, Any]:
    """Each attempt with its outcome and what it was chosen from; `why` is missing where that was not recorded."""
    found = await find_run(run, parts)
    return {
        "run": found.run,
        "model": found.model,
        "endpoint": found.endpoint,
        "outcome": found.outcome,
        "code": found.code,
        "attempts": found.attempts,
    }


@routes.get(
    "/routes/{model:path}",
    response_model=RouteNow,
    summary="Explain where the next request would go",
    openapi_extra=operation(
        answer({"model": "hosted-large", "endpoint": "hosted-a", "why": _WHY}), fails(Code.not_found)
    ),
)
async def route_now(model: Model, parts: Given) -> dict[str, Any]:
    """What would be chosen now, as if one router had all slots; `endpoint` is empty when none could be."""
    return await parts.routing.now(model)
