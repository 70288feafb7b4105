"""GET /asyncapi.json and /docs/errors/{code}: what the streams carry, and what an error means. Public.

An error's `doc_url` names its page, on either port. /openapi.json is FastAPI's own route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from ingress.documents.openapi import answer, fails, operation
from ingress.documents.pages import error_page
from ingress.errors import PAGES
from schemas.errors import Code, Refusal

_MARKDOWN = "text/markdown; charset=utf-8"
_PAGE = "# not_found\n\nThe path or id does not exist.\n\n## What happened\n..."


def pages() -> APIRouter:
    """The pages of the error codes."""
    routes = APIRouter(tags=["documents"])

    @routes.get(
        PAGES + "{code}",
        summary="Read what an error code means",
        response_class=Response,
        openapi_extra=operation(
            answer(_PAGE, "The page, as Markdown.", schema={"type": "string"}, media="text/markdown"),
            fails(Code.not_found),
        ),
    )
    async def show_error_page(
        code: Annotated[str, InPath(description="A name of the list of error codes.", examples=["not_found"])],
        request: Request,
    ) -> Response:
        """What happened and what to do: the page that `doc_url` of an error body names. A browser gets it as text."""
        known = Code.__members__.get(code.removesuffix(".md"))
        if known is None:
            raise Refusal.of(Code.not_found, "There is no such error code.", param="code")
        browser = "text/html" in request.headers.get("accept", "")
        return Response(error_page(known), media_type="text/plain; charset=utf-8" if browser else _MARKDOWN)

    return routes


def asyncapi(document: Callable[[], bytes]) -> APIRouter:
    """The AsyncAPI document of the streams. document: makes it, when first asked."""
    routes = APIRouter(tags=["documents"])

    @routes.get(
        "/asyncapi.json",
        summary="Describe every stream, group and message",
        openapi_extra=operation(
            answer({"asyncapi": "3.0.0"}, "AsyncAPI 3.0.", schema={"type": "object", "required": ["asyncapi"]})
        ),
    )
    async def show_asyncapi() -> Response:
        """The streams that the rooms speak over, as AsyncAPI 3.0: what `streams.yaml` declares, with the messages'
        schemas."""
        return Response(document(), media_type="application/json")

    return routes
