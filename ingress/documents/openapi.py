"""OpenAPI 3.1 of a port: small words for a route's own part, and what every operation shares, added at the end.

    @routes.get(PATH, summary="...", openapi_extra=operation(answer(EXAMPLE), fails(Code.not_found)))

What is added to each operation: its refusals (no key, bad input, a store that is away), the headers of every answer,
the ways to present a key. FastAPI's 422 is taken out: bad input is 400 here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from base.version import version
from ingress.documents.failures import EXAMPLES
from ingress.errors import error_body, face_of, http_status
from schemas.errors import Code

Part = dict[str, Any]

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
#: Each server-sent event of an answer that is a stream.
EVENT: Part = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string"}, "id": {"type": "string"}},
}
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})

#: OpenAI's error object with our `doc_url`; additional keys may follow in later versions.
ERROR: Part = {
    "type": "object",
    "description": "Why there is no answer. `doc_url` is a path of this port: what happened and what to do.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "doc_url"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "doc_url": {"type": "string"},
            },
        }
    },
}

_RETRY: Part = {
    "retry-after": {"description": "Seconds to wait before the next try.", "schema": {"type": "string"}},
    "retry-after-ms": {"description": "The same in milliseconds.", "schema": {"type": "string"}},
    "x-should-retry": {
        "description": "`false`: a repeat cannot help, or work was billed already.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}


def operation(*parts: Part) -> Part:
    """The parts as one `openapi_extra`."""
    whole: Part = {}
    for part in parts:
        merge(whole, part)
    return whole


def merge(into: Part, part: Mapping[str, Any]) -> None:
    """Add what `into` lacks, deeply; what it has stays."""
    for name, value in part.items():
        if isinstance(value, dict):
            inner = into.setdefault(name, {})
            if isinstance(inner, dict):
                merge(inner, value)
        else:
            into.setdefault(name, value)


def asks(example: object, schema: Part | None = None, required: bool = True) -> Part:
    """A JSON request body. schema: for raw handlers; FastAPI knows that of its own routes."""
    content: Part = {"example": example}
    if schema is not None:
        content["schema"] = schema
    return {"requestBody": {"required": required, "content": {JSON: content}}}


def answer(
    example: object,
    description: str = "The answer.",
    *,
    status: int = 200,
    schema: Part | None = None,
    media: str = JSON,
    headers: Part | None = None,
) -> Part:
    """A good answer. schema: as in `asks`."""
    content: Part = {"example": example}
    if schema is not None:
        content["schema"] = schema
    said: Part = {"description": description, "content": {media: content}}
    if headers:
        said["headers"] = headers
    return {"responses": {str(status): said}}


def fails(*codes: Code) -> Part:
    """The answers with these codes: an example each, and retry-after where the code has one."""
    return operation(*[_failure(code) for code in codes])


def _failure(code: Code) -> Part:
    failure = EXAMPLES[code]
    shown = {code.value: {"summary": code.value, "value": orjson.loads(error_body(failure))}}
    said: Part = {
        "description": _STATUS_WORDS.get(http_status(failure), "An error; see the examples") + ".",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}, "examples": shown}},
    }
    if face_of(failure).retry_ms is not None:
        said["headers"] = _RETRY
    return {"responses": {str(http_status(failure)): said}}


_STATUS_WORDS = {
    400: "The request is wrong; `param` names the culprit where there is one",
    401: "No key, or none that is valid",
    403: "A valid key without the scope",
    404: "There is no such thing, or not for this key",
    408: "The body did not arrive in time",
    413: "The body is too large",
    422: "The request contradicts an earlier one",
    429: "A limit of the key is reached",
    500: "Our fault; the log has it",
    502: "Every engine that was tried failed, or the answer broke off",
    503: "Not now; send it again after `retry-after`",
    504: "It took too long",
}

BEARER: Part = {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer hr_...`"}
API_KEY: Part = {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the operations of a port share. public: paths that ask for no key. headers: of every answer."""

    title: str
    description: str
    tags: Mapping[str, str]
    public: Collection[str] = ()
    headers: Mapping[str, Part] = field(default_factory=dict)


class DocumentedAPI(FastAPI):
    """A FastAPI application whose document is completed by what its operations share."""

    def __init__(self, shared: Shared, **settings: Any) -> None:
        tags = [{"name": name, "description": said} for name, said in shared.tags.items()]
        super().__init__(
            title=shared.title, version=version(), description=shared.description, openapi_tags=tags, **settings
        )
        self._shared = shared

    def openapi(self) -> Part:
        """The whole document; made once."""
        if self.openapi_schema is None:
            complete(super().openapi(), self._shared)
            self._restore_examples(self.openapi_schema or {})
        assert self.openapi_schema is not None
        return self.openapi_schema

    def _restore_examples(self, document: Part) -> None:
        """FastAPI drops every null on its way, those of examples too."""
        for route in iter_route_contexts(self.routes):
            extra: Part = getattr(route.original_route, "openapi_extra", None) or {}
            path = _CONVERTER.sub("}", str(route.path))
            for method in route.methods or () if extra else ():
                restore(document["paths"][path][method.lower()], extra)


_CONVERTER = re.compile(r":\w+}")  # what a path says of a parameter's kind; the document leaves it out


def restore(into: Part, part: Mapping[str, Any]) -> None:
    """Put the examples of `part` back as they were written."""
    for name, value in part.items():
        if name == "example":
            into[name] = value
        elif name == "examples":
            into[name] |= value
        elif isinstance(value, dict):
            restore(into[name], value)


def complete(document: Part, shared: Shared) -> None:
    """Add to FastAPI's document, in place, what a port's operations share."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = ERROR
    components["securitySchemes"] = {"bearer": BEARER, "api_key": API_KEY}
    for path, methods in document["paths"].items():
        for method in _METHODS & methods.keys():
            _complete(methods[method], path in shared.public, shared)


def _complete(operation: Part, public: bool, shared: Shared) -> None:
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):  # the framework's; ours is another
        del responses["422"]
    if public:
        operation["security"] = []
    else:
        operation["security"] = [{"bearer": []}, {"api_key": []}]
        merge(operation, fails(Code.invalid_api_key, Code.permission_denied, Code.store_unavailable))
    if "requestBody" in operation:
        merge(operation, fails(Code.invalid_request, Code.request_too_large))
    elif operation.get("parameters"):
        merge(operation, fails(Code.invalid_request))
    merge(operation, fails(Code.internal_error))
    for response in responses.values() if shared.headers else ():
        merge(response, {"headers": dict(shared.headers)})
    operation["responses"] = dict(sorted(responses.items()))
