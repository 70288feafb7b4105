"""GET /v1/models and /v1/models/{id}: the models that exist for this key. Ids may contain `/`."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response

from ingress.credentials import allow
from ingress.documents.openapi import Part, answer, fails, operation
from ingress.parts import Parts
from policy.decision import visible
from schemas.errors import Code
from schemas.records import ModelRecord

_MODEL: Part = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string", "const": "model"},
        "created": {"type": "integer", "description": "Seconds since the epoch."},
        "owned_by": {"type": "string"},
    },
}
_LIST: Part = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"type": "string", "const": "list"}, "data": {"type": "array", "items": _MODEL}},
}
Name = Annotated[str, Path(description="A public name; may hold `/`.", examples=["smollm2"])]
_SMALL = {"id": "smollm2", "object": "model", "created": 1_760_000_000, "owned_by": "headrace"}
_LISTED = operation(answer({"object": "list", "data": [_SMALL]}, schema=_LIST))
_SHOWN = operation(answer(_SMALL, schema=_MODEL), fails(Code.model_not_found))


def router(parts: Parts) -> APIRouter:
    """The routes over these parts."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", summary="List the models this key may use", openapi_extra=_LISTED)
    async def list_models(request: Request) -> Response:
        """Every model that exists and that the key's patterns let it see."""
        allowed = await allow(dict(request.scope["headers"]), parts)
        models = visible(allowed.key, await parts.catalog.models())
        return _json({"object": "list", "data": [_public(model) for model in models]})

    @routes.get("/v1/models/{model:path}", summary="Show one model", openapi_extra=_SHOWN)
    async def show_model(model: Name, request: Request) -> Response:
        """A model that the key may not use looks as if it did not exist."""
        allowed = await allow(dict(request.scope["headers"]), parts, model)
        assert allowed.model is not None  # a model was named, so a yes carries it
        return _json(_public(allowed.model))

    return routes


def _public(model: ModelRecord) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": model.owned_by}


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
