"""/requests/{run}/route, why a run went where it went; /routes/{model}, where the next one would go and why."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from console.admin.parts import Given
from console.admin.routes.requests import find_run

routes = APIRouter()


@routes.get("/requests/{run}/route")
async def route_of(run: str, parts: Given) -> dict[str, Any]:
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


@routes.get("/routes/{model:path}")
async def route_now(model: str, parts: Given) -> dict[str, Any]:
    """What would be chosen now. `endpoint` is empty when none could be."""
    return await parts.routing.now(model)
