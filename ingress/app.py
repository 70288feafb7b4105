"""The door's ASGI application, the only wiring of this room.

    POST /v1/chat/completions     routes/work.py      raw ASGI, before any framework; in FastAPI for the document only
    POST /v1/completions          routes/work.py
    POST /v1/embeddings           routes/work.py
    POST /v1/moderations          routes/work.py
    POST /v1/responses            responses/work.py
    GET, DELETE /v1/responses/..  routes/responses.py FastAPI
    GET  /v1/models[/{id}]        routes/models.py    FastAPI
    GET  /v1/streams/{run}        routes/streams.py   FastAPI, sse-starlette
    GET  /livez /readyz /metrics  routes/health.py    FastAPI, public
    GET  /docs/errors/{code}      routes/documents.py FastAPI, public
    GET  /asyncapi.json           routes/documents.py FastAPI, public
    GET  /openapi.json            documents/          FastAPI, public

Every answer carries x-request-id and openai-processing-ms, and every error is OpenAI's object, FastAPI's own included.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base import logs
from ingress.documents.openapi import DocumentedAPI, Shared
from ingress.errors import INTERNAL, error_body, failure_of, http_status, retry_headers
from ingress.exchange import spread_of
from ingress.headers import own_headers
from ingress.methods import methods_of
from ingress.parts import Parts
from ingress.routes import documents, health, models, responses, streams, table
from schemas.errors import Code, Failure, HeadraceError

#: What answers without a key. Everything else must refuse with 401; a test walks the routes.
PUBLIC = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json", "/docs/errors/{code}"})
RUN = "headrace.run"  # where a cold request's scope has its x-request-id
log = logs.room("ingress")

DOCUMENT = Shared(
    title="Headrace",
    description="A gateway for language models with OpenAI's API. Every error is OpenAI's object with a `doc_url`; "
    "unknown paths are 404, other methods 405, heads that are too large 431, in the same shape.",
    tags={
        "chat": "Conversations.",
        "completions": "Texts that are continued.",
        "embeddings": "Texts as vectors.",
        "moderations": "What the guardrails find.",
        "responses": "OpenAI's newer way to ask; what was asked and answered can be read again.",
        "models": "What a key may use.",
        "streams": "Reading a run again.",
        "documents": "What this gateway says of itself; no key needed.",
        "health": "For load balancers and monitoring; no key needed.",
    },
    public=PUBLIC,
    headers={
        "x-request-id": {
            "description": "The name of this request in the gateway's log and, once accepted, of its run.",
            "required": True,
            "schema": {"type": "string"},
        },
        "openai-processing-ms": {
            "description": "Milliseconds from the request's head to the answer's.",
            "schema": {"type": "string"},
        },
    },
)


class Ingress:
    """Hot routes first, FastAPI for the rest."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        work = table.handlers(parts)
        self.hot: dict[tuple[str, str], ASGIApp] = {("POST", path): handler for path, handler in work.items()}
        self.framework = _framework(parts, work)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI; whoever handles it is awaited by the server itself."""
        if scope["type"] != "http":
            return self.framework(scope, receive, send)
        handler = self.hot.get((scope["method"], scope["path"]), self._cold)
        return handler(scope, receive, send)

    async def _cold(self, scope: Scope, receive: Receive, send: Send) -> None:
        run, clock = self._parts.door.mint(), self._parts.clock
        started = clock.monotonic()
        scope[RUN] = run

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *own_headers(run, False, clock.monotonic() - started)]
            await send(message)

        try:
            await self.framework(scope, receive, named)
        except Exception:  # answered already by _internal; Starlette raises it again for whoever logs
            log.exception("request failed", run=run, path=scope["path"])


def _framework(parts: Parts, work: Mapping[str, ASGIApp]) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with parts.stalls.watching():
            yield

    app = DocumentedAPI(
        DOCUMENT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _http_error,
            RequestValidationError: _invalid,
            HeadraceError: _ours,
            Exception: _internal,
        },
    )
    app.include_router(table.router(work))
    app.include_router(models.router(parts))
    app.include_router(streams.router(parts))
    app.include_router(responses.router(parts))
    app.include_router(documents.pages())
    app.include_router(documents.asyncapi(parts.asyncapi))
    app.include_router(health.router(parts))
    return app


def respond(failure: Failure, spread: float = 0.0) -> Response:
    """A failure as a framework response. spread: see retry_headers."""
    response = Response(error_body(failure), http_status(failure), media_type="application/json")
    response.raw_headers.extend(retry_headers(failure, spread))
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:256]}"
    codes = {404: Code.not_found, 405: Code.method_not_allowed}
    code = codes.get(error.status_code, Code.invalid_request)
    words = {404: f"Unknown path: {where}. The routes are listed at /openapi.json.", 405: f"{where} is not allowed."}
    failure = Failure(code=code.value, message=words.get(error.status_code, str(error.detail)))
    response = Response(error_body(failure), error.status_code, media_type="application/json")
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = methods_of(request.app, request.url.path)
    return response


async def _invalid(_: Request, error: Exception) -> Response:
    """A wrong query parameter: 400 with `param`, never 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    missing = first["type"] == "missing"
    code = Code.missing_required_parameter if missing else Code.invalid_request
    message = f"Missing required parameter: '{name}'." if missing else f"Invalid value for '{name}': {first['msg']}."
    return respond(
        Failure(code=code.value, message=message, param=name, public_code=None if missing else "invalid_value")
    )


async def _ours(request: Request, error: Exception) -> Response:
    failure = failure_of(error)
    if failure is INTERNAL:
        log.error("request failed", run=request.scope[RUN], path=request.url.path, reason=repr(error))
    return respond(failure, spread_of(request.scope[RUN]))


async def _internal(_: Request, error: Exception) -> Response:
    return respond(INTERNAL)
