"""What differs between the routes that start work: the path, how the body is read, what the document says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ingress.asked import Parse, parse_chat, parse_completion, parse_embedding, parse_moderation
from ingress.parts import Parts
from ingress.routes.work import Work
from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRoute:
    """One row. needs: the fields a body must have; fields: JSON Schema of the known ones; example: a body that works
    where the model exists."""

    path: str
    parse: Parse
    name: str
    tag: str
    summary: str
    needs: tuple[str, ...]
    fields: Mapping[str, Any]
    example: Mapping[str, Any]


_MODEL = {"type": "string"}
_TEXTS_OR_TOKENS = {
    "description": "A text, a list of texts, token ids, or lists of token ids.",
    "oneOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": {"type": "integer"}},
        {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": {"type": "integer"}}},
    ],
}
_MODERATED = {
    "description": "A text, a list of texts, or a list of text parts, which together are one input.",
    "oneOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            },
        },
    ],
}
_STREAM = {"type": "boolean", "default": False}

ROUTES: tuple[WorkRoute, ...] = (
    WorkRoute(
        path=CHAT,
        parse=parse_chat,
        name="create_chat_completion",
        tag="chat",
        summary="Create a chat completion, whole or as a stream",
        needs=("model", "messages"),
        fields={
            "model": _MODEL,
            "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
            "stream": _STREAM,
        },
        example={"model": "smollm2", "messages": [{"role": "user", "content": "Say hello"}], "stream": True},
    ),
    WorkRoute(
        path=COMPLETIONS,
        parse=parse_completion,
        name="create_completion",
        tag="completions",
        summary="Continue a text, whole or as a stream",
        needs=("model", "prompt"),
        fields={"model": _MODEL, "prompt": _TEXTS_OR_TOKENS, "stream": _STREAM, "max_tokens": {"type": "integer"}},
        example={"model": "smollm2", "prompt": "Water flows", "max_tokens": 16},
    ),
    WorkRoute(
        path=EMBEDDINGS,
        parse=parse_embedding,
        name="create_embedding",
        tag="embeddings",
        summary="Turn texts into vectors",
        needs=("model", "input"),
        fields={
            "model": _MODEL,
            "input": _TEXTS_OR_TOKENS,
            "encoding_format": {"enum": ["float", "base64"], "default": "float"},
            "dimensions": {"type": "integer", "minimum": 1},
        },
        example={"model": "all-minilm-l6-v2", "input": ["A channel that leads water to a mill", "A mill race"]},
    ),
    WorkRoute(
        path=MODERATIONS,
        parse=parse_moderation,
        name="create_moderation",
        tag="moderations",
        summary="What this gateway's guardrails find in texts; nothing is blocked or changed",
        needs=("input",),
        fields={"model": _MODEL, "input": _MODERATED},
        example={"input": "My card is 4111 1111 1111 1111"},
    ),
)


def handlers(parts: Parts) -> dict[str, ASGIApp]:
    """Path -> the handler of its POST."""
    return {row.path: Work(parts, row.path, row.parse) for row in ROUTES}


class _Handled(Response):
    """A framework response that lets the raw handler speak."""

    def __init__(self, handler: ASGIApp) -> None:
        super().__init__()
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(scope, receive, send)


def router(work: Mapping[str, ASGIApp]) -> APIRouter:
    """The routes for the document; requests reach their handlers before the framework."""
    routes = APIRouter()
    for row in ROUTES:
        _add(routes, row, work[row.path])
    return routes


def _add(routes: APIRouter, row: WorkRoute, handler: ASGIApp) -> None:
    async def endpoint() -> Response:
        return _Handled(handler)

    routes.add_api_route(
        row.path,
        endpoint,
        methods=["POST"],
        name=row.name,
        tags=[row.tag],
        summary=row.summary,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": _content(row)}}},
    )


def _content(row: WorkRoute) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": list(row.needs),
        "properties": dict(row.fields),
        "additionalProperties": True,
    }
    return {"schema": schema, "example": dict(row.example)}
