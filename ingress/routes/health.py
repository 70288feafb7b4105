"""/livez, /readyz and /metrics on the public port, for load balancers that see no other.

/readyz answers as the process's own health port does: 503 while draining or while a check fails.
"""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from base import metrics
from ingress.documents.openapi import TEXT, Part, answer, operation
from ingress.parts import Parts

_WORD: Part = {"type": "string"}
_READY: Part = {
    "type": "object",
    "required": ["ready", "room", "checks"],
    "properties": {
        "ready": {"type": "boolean"},
        "room": {"type": "string"},
        "checks": {
            "type": "object",
            "description": "`ok`, or what is wrong.",
            "additionalProperties": {"type": "string"},
        },
    },
}
_WELL = {"ready": True, "room": "ingress", "checks": {"redis": "ok"}}
_UNWELL = {"ready": False, "room": "ingress", "checks": {"redis": "Redis is not connected"}}
_LIVEZ = operation(answer("ok\n", schema=_WORD, media=TEXT))
_READYZ = operation(
    answer(_WELL, schema=_READY),
    answer(_UNWELL, "Send the work elsewhere.", status=503, schema=_READY),
)
_METRICS = operation(answer("# HELP headrace_inflight Runs that have not ended.\n...", schema=_WORD, media=TEXT))


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="Whether this process turns", response_class=Response, openapi_extra=_LIVEZ)
    async def livez() -> Response:
        """Always `ok`."""
        return Response(b"ok\n", media_type="text/plain")

    @routes.get("/readyz", summary="Whether this process takes work", openapi_extra=_READYZ)
    async def readyz() -> Response:
        """Its own checks and whether it is going away."""
        ready, checks = await parts.health.ready()
        body = orjson.dumps({"ready": ready, "room": parts.health.room, "checks": checks})
        return Response(body, 200 if ready else 503, media_type="application/json")

    if parts.settings.expose_metrics:

        @routes.get("/metrics", summary="Prometheus text", response_class=Response, openapi_extra=_METRICS)
        async def exposition() -> Response:
            """The metrics of this process; each process has more on its health port."""
            return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    return routes
