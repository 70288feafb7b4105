"""What differs between the routes that start work: the path, how the body is read, what the document says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ingress.asked import Parse, parse_chat, parse_completion, parse_embedding, parse_moderation
from ingress.documents.responses import CREATE
from ingress.documents.work import OPERATIONS
from ingress.parts import Parts
from ingress.responses.asked import parse_response
from ingress.responses.work import ResponsesWork
from ingress.routes.work import Work
from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RESPONSES


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRoute:
    """One row. What the document says of it beside the summary: documents/work.py, documents/responses.py."""

    path: str
    parse: Parse
    name: str
    tag: str
    summary: str
    kind: type[Work] = Work


ROUTES: tuple[WorkRoute, ...] = (
    WorkRoute(
        path=CHAT,
        parse=parse_chat,
        name="create_chat_completion",
        tag="chat",
        summary="Create a chat completion, whole or as a stream",
    ),
    WorkRoute(
        path=COMPLETIONS,
        parse=parse_completion,
        name="create_completion",
        tag="completions",
        summary="Continue a text, whole or as a stream",
    ),
    WorkRoute(
        path=EMBEDDINGS,
        parse=parse_embedding,
        name="create_embedding",
        tag="embeddings",
        summary="Turn texts into vectors",
    ),
    WorkRoute(
        path=MODERATIONS,
        parse=parse_moderation,
        name="create_moderation",
        tag="moderations",
        summary="What this gateway's guardrails find in texts; nothing is blocked or changed",
    ),
    WorkRoute(
        path=RESPONSES,
        parse=parse_response,
        name="create_response",
        tag="responses",
        summary="Create a response, whole, as a stream, or in the background",
        kind=ResponsesWork,
    ),
)


#: What the document says of each route.
DOCUMENTED = {**OPERATIONS, RESPONSES: CREATE}


def handlers(parts: Parts) -> dict[str, ASGIApp]:
    """Path -> the handler of its POST."""
    return {row.path: row.kind(parts, row.path, row.parse) for row in ROUTES}


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
        openapi_extra=DOCUMENTED[row.path],
    )
