"""How a failure looks outside: OpenAI's error object, its status and its headers.

FACES is the one table from a code to the public `type` and `code`; the status stands in schemas.errors.STATUS. An
engine's own error is passed on with the type, code and status it came with. Unknown codes (a newer writer's) read as
internal errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import orjson

from schemas.errors import Code, Failure, Refusal, Unavailable, status_of

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Face:
    """type and code as clients see them; retry_ms: when to come back if the failure does not say."""

    type: str
    code: str | None
    retry_ms: int | None = None


_REQUEST, _BUSY = "invalid_request_error", "service_unavailable_error"

FACES: Mapping[Code, Face] = MappingProxyType(
    {
        Code.invalid_request: Face(_REQUEST, None),
        Code.missing_required_parameter: Face(_REQUEST, "missing_required_parameter"),
        Code.request_too_large: Face(_REQUEST, "request_too_large"),
        Code.context_length_exceeded: Face(_REQUEST, "context_length_exceeded"),
        Code.content_policy_violation: Face(_REQUEST, "content_policy_violation"),
        Code.invalid_api_key: Face(_REQUEST, "invalid_api_key"),
        Code.permission_denied: Face("permission", "permission_denied"),
        Code.model_not_found: Face(_REQUEST, "model_not_found"),
        Code.not_found: Face(_REQUEST, "not_found"),
        Code.method_not_allowed: Face(_REQUEST, "method_not_allowed"),
        Code.idempotency_key_reused: Face(_REQUEST, "idempotency_key_reused"),
        Code.request_timeout: Face(_REQUEST, "request_timeout"),
        Code.rate_limit_exceeded: Face("requests", "rate_limit_exceeded", 1000),
        Code.overloaded: Face(_BUSY, "server_is_overloaded", 1000),
        Code.no_engine: Face(_BUSY, "server_is_overloaded", 2000),
        Code.upstream_error: Face("upstream_error", "upstream_error", 1000),
        Code.upstream_interrupted: Face("upstream_error", "upstream_interrupted"),
        Code.upstream_timeout: Face("timeout", "upstream_timeout", 1000),
        Code.deadline_exceeded: Face("timeout", "deadline_exceeded"),
        Code.guardrail_unavailable: Face(_BUSY, "guardrail_unavailable", 1000),
        Code.store_unavailable: Face(_BUSY, "store_unavailable", 1000),
        Code.cancelled: Face(_REQUEST, "cancelled"),
        Code.draining: Face(_BUSY, "server_is_overloaded", 1000),
        Code.internal_error: Face("server_error", "internal_error"),
    }
)

_FREE_MS = 1000  # when to come back after a failure of any kind that did nothing
PAGES = "/docs/errors/"  # followed by a code; routes/documents.py serves them

INTERNAL = Failure(
    code=Code.internal_error.value,
    message="The gateway failed on this request. Its x-request-id finds it in the gateway's log.",
)
STORE_AWAY = Failure(
    code=Code.store_unavailable.value,
    message="The gateway's store is away or refuses writes. Send the request again shortly.",
)


def failure_of(error: Exception) -> Failure:
    """What to tell the client about an exception; anything that is not ours is an internal error."""
    if isinstance(error, Refusal):
        return error.failure
    if isinstance(error, Unavailable):
        return STORE_AWAY
    return INTERNAL


def face_of(failure: Failure) -> Face:
    """The public side of a failure's code."""
    try:
        return FACES[Code(failure.code)]
    except ValueError:
        return FACES[Code.internal_error]


def http_status(failure: Failure) -> int:
    """The status to answer with: always 400..599, whatever an engine may have claimed."""
    status = status_of(failure)
    return status if 400 <= status <= 599 else 502


def error_body(failure: Failure) -> bytes:
    """{"error": {message, type, param, code, doc_url}}, all five keys always. doc_url: the page of our own code, also
    where an engine's words are passed on; a path on the port that answered."""
    face = face_of(failure)
    passed_on = failure.status is not None or failure.public_code is not None
    return orjson.dumps(
        {
            "error": {
                "message": failure.message,
                "type": failure.type or face.type,
                "param": failure.param,
                "code": failure.public_code if passed_on else face.code,
                "doc_url": page_of(failure),
            }
        }
    )


def page_of(failure: Failure) -> str:
    """Where the failure's code is explained."""
    return PAGES + (failure.code if failure.code in Code.__members__ else Code.internal_error.value)


def error_event(failure: Failure) -> bytes:
    """The one event that ends a stream which had begun. JSON text holds no line break, so it is one line."""
    return b"data: " + error_body(failure) + b"\n\n"


def retry_headers(failure: Failure, spread: float = 0.0) -> list[Header]:
    """retry-after (whole seconds, rounded up), retry-after-ms and x-should-retry, where they apply: true where a wait
    is named, for then nothing was billed and another try is free; false where it is known that none can help. spread:
    0 to 1, by how much a wait that the failure does not name is longer, so that those who are refused together do not
    come back together."""
    wait, retry = failure.retry_after_ms, failure.should_retry
    if wait is None and retry is not False:
        usual = face_of(failure).retry_ms or (_FREE_MS if retry else None)
        wait = None if usual is None else round(usual * (1 + spread))
    if retry is None and wait is not None:
        retry = True
    headers: list[Header] = []
    if wait is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(max(wait, 0) / 1000)))
        headers.append((b"retry-after-ms", b"%d" % max(wait, 0)))
    if retry is not None:
        headers.append((b"x-should-retry", b"true" if retry else b"false"))
    return headers
