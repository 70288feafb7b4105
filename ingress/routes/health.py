"""/livez, /readyz and /metrics on the public port, for load balancers that see no other.

/readyz answers as the process's own health port does: 503 while draining or while a check fails.
"""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from base import metrics
from ingress.parts import Parts


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="Whether this process turns")
    async def livez() -> Response:
        return Response(b"ok\n", media_type="text/plain")

    @routes.get("/readyz", summary="Whether this process takes work")
    async def readyz() -> Response:
        ready, checks = await parts.health.ready()
        body = orjson.dumps({"ready": ready, "room": parts.health.room, "checks": checks})
        return Response(body, 200 if ready else 503, media_type="application/json")

    if parts.settings.expose_metrics:

        @routes.get("/metrics", summary="Prometheus text")
        async def exposition() -> Response:
            return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    return routes
