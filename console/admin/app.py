"""The wiring of the admin API: gate, routes, errors, and its OpenAPI document, which asks for a key like all else."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from base import logs
from console.admin.gate import Gate
from console.admin.parts import Parts
from console.admin.routes import deployments, dlq, groups, guardrails, keys, processes, requests, routing
from ingress.documents.openapi import DocumentedAPI, Shared
from ingress.errors import PAGES, error_body, failure_of, http_status, retry_headers
from ingress.methods import methods_of
from ingress.routes import documents
from schemas.errors import Code, Failure, HeadraceError
from storage.errors import UnfitValue

PREFIX = "/admin/v1"
log = logs.room("console")

DOCUMENT = Shared(
    title="Headrace admin API",
    description="The operator's API: keys, models, the record, dead letters, backlogs. Every error is OpenAI's object "
    "with a `doc_url`; unknown paths are 404, other methods 405, in the same shape.",
    tags={
        "keys": "API keys.",
        "models": "What should be served, and how it stands.",
        "requests": "What was asked, live and on the record.",
        "dlq": "Entries that could not be handled.",
        "groups": "Consumer groups, who serves them, and their backlog.",
        "guardrails": "Trying a text.",
        "documents": "What the codes mean; no key needed.",
    },
    public={PAGES + "{code}"},
)


def build(parts: Parts) -> FastAPI:
    """The application over its parts."""
    app = DocumentedAPI(DOCUMENT, openapi_url=f"{PREFIX}/openapi.json", docs_url=None, redoc_url=None)
    app.state.parts = parts
    for room in (keys, deployments, requests, routing, dlq, groups, processes, guardrails):
        app.include_router(room.routes, prefix=PREFIX)
    app.include_router(documents.pages())
    app.add_exception_handler(HeadraceError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)
    app.add_middleware(Gate, parts=parts)
    return app


def _respond(failure: Failure) -> Response:
    headers = {name.decode(): value.decode() for name, value in retry_headers(failure)}
    return Response(error_body(failure), http_status(failure), headers, "application/json")


async def _ours(request: Request, error: Exception) -> Response:
    if isinstance(error, UnfitValue):
        text = "A value cannot be stored: a text must not hold NUL, a number must fit 64 bits."
        return _respond(Failure(code=Code.invalid_request.value, message=text))
    return _respond(failure_of(error))


async def _unknown(request: Request, error: Exception) -> Response:
    log.error("an admin route failed", path=request.url.path, kind=type(error).__name__, reason=str(error))
    return _respond(failure_of(error))


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = f"{request.method} {request.url.path[:200]}"
    if status == 400:
        return _respond(Failure(code=Code.invalid_request.value, message="The body is no JSON that can be read."))
    if status == 405:
        failure = Failure(code=Code.method_not_allowed.value, message=f"{path}: this path has other methods.")
        response = _respond(failure)
        response.headers["allow"] = methods_of(request.app, request.url.path)
        return response
    return _respond(Failure(code=Code.not_found.value, message=f"{path}: there is no such path in {PREFIX}."))


async def _invalid(request: Request, error: Exception) -> Response:
    """Every mistake of a body or query, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    said = [
        (".".join(map(str, item["loc"][1:])) or "body", item["msg"].removeprefix("Value error, "))
        for item in error.errors()
    ]
    message = "; ".join(f"{where}: {what}" for where, what in said)
    return _respond(Failure(code=Code.invalid_request.value, message=message, param=said[0][0] if said else None))
