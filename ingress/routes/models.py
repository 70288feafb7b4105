"""GET /v1/models and /v1/models/{id}: the models that exist for this key. Ids may contain `/`."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from ingress.credentials import allow
from ingress.parts import Parts
from policy.decision import visible
from schemas.records import ModelRecord


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", summary="List the models this key may use")
    async def list_models(request: Request) -> Response:
        allowed = await allow(dict(request.scope["headers"]), parts)
        models = visible(allowed.key, await parts.catalog.models())
        return _json({"object": "list", "data": [_public(model) for model in models]})

    @routes.get("/v1/models/{model:path}", summary="Show one model")
    async def show_model(model: str, request: Request) -> Response:
        allowed = await allow(dict(request.scope["headers"]), parts, model)
        assert allowed.model is not None  # a model was named, so a yes carries it
        return _json(_public(allowed.model))

    return routes


def _public(model: ModelRecord) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": model.owned_by}


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
