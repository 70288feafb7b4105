"""How failures look outside: the table, the body, the headers."""

from __future__ import annotations

import orjson
import pytest

from ingress.errors import (
    FACES,
    Face,
    error_body,
    error_event,
    failure_of,
    http_status,
    retry_headers,
)
from schemas.errors import Code, DecodeError, Failure, Refusal, Unavailable


def seen(failure: Failure) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(error_body(failure))["error"]
    return found


def test_every_code_has_a_public_face() -> None:
    assert set(FACES) == set(Code)


@pytest.mark.parametrize(
    ("code", "status", "face"),
    [
        (Code.invalid_request, 400, Face("invalid_request_error", None)),
        (Code.missing_required_parameter, 400, Face("invalid_request_error", "missing_required_parameter")),
        (Code.context_length_exceeded, 400, Face("invalid_request_error", "context_length_exceeded")),
        (Code.content_policy_violation, 400, Face("invalid_request_error", "content_policy_violation")),
        (Code.invalid_api_key, 401, Face("invalid_request_error", "invalid_api_key")),
        (Code.permission_denied, 403, Face("permission", "permission_denied")),
        (Code.model_not_found, 404, Face("invalid_request_error", "model_not_found")),
        (Code.request_timeout, 408, Face("invalid_request_error", "request_timeout")),
        (Code.request_too_large, 413, Face("invalid_request_error", "request_too_large")),
        (Code.rate_limit_exceeded, 429, Face("requests", "rate_limit_exceeded")),
        (Code.internal_error, 500, Face("server_error", "internal_error")),
        (Code.upstream_error, 502, Face("upstream_error", "upstream_error")),
        (Code.no_engine, 503, Face("service_unavailable_error", "server_is_overloaded")),
        (Code.overloaded, 503, Face("service_unavailable_error", "server_is_overloaded")),
        (Code.draining, 503, Face("service_unavailable_error", "server_is_overloaded")),
        (Code.deadline_exceeded, 504, Face("timeout", "deadline_exceeded")),
    ],
)
def test_a_code_reads_as_clients_expect_it(code: Code, status: int, face: Face) -> None:
    failure = Failure(code=code.value, message="why", param="model")
    assert http_status(failure) == status
    wanted = {"message": "why", "type": face.type, "param": "model", "code": face.code}
    assert seen(failure) == {**wanted, "doc_url": f"/docs/errors/{code}"}


def test_an_engines_own_error_is_passed_on_with_its_null_code() -> None:
    failure = Failure(code=Code.invalid_request.value, message="no", status=422, type="BadRequestError")
    assert http_status(failure) == 422
    assert seen(failure) == {
        "message": "no",
        "type": "BadRequestError",
        "param": None,
        "code": None,
        "doc_url": "/docs/errors/invalid_request",
    }


@pytest.mark.parametrize("status", [200, 204, 302, 999])
def test_an_engine_cannot_make_an_error_look_like_anything_else(status: int) -> None:
    assert http_status(Failure(code=Code.upstream_error.value, message="", status=status)) == 502


def test_a_code_of_a_newer_writer_reads_as_an_internal_error() -> None:
    failure = Failure(code="invented_tomorrow", message="m")
    assert http_status(failure) == 500
    assert seen(failure)["type"] == "server_error"


def test_retry_after_is_rounded_up_to_whole_seconds() -> None:
    failure = Failure(code=Code.overloaded.value, message="", retry_after_ms=1001)
    assert retry_headers(failure)[:2] == [(b"retry-after", b"2"), (b"retry-after-ms", b"1001")]


def test_a_usual_wait_is_spread_and_a_computed_one_is_not() -> None:
    usual, computed = (Failure(code=Code.draining.value, message="", retry_after_ms=wait) for wait in (None, 700))
    assert [dict(retry_headers(usual, spread))[b"retry-after-ms"] for spread in (0.0, 0.5)] == [b"1000", b"1500"]
    assert dict(retry_headers(computed, 0.5))[b"retry-after-ms"] == b"700"


def test_whoever_did_nothing_says_so_and_the_wait_is_spread_whatever_the_code() -> None:
    late = Failure(code=Code.deadline_exceeded.value, message="", should_retry=True)
    assert [dict(retry_headers(late, spread))[b"retry-after-ms"] for spread in (0.0, 0.5)] == [b"1000", b"1500"]
    assert dict(retry_headers(late))[b"x-should-retry"] == b"true"


def test_where_a_wait_is_named_another_try_is_free_and_the_client_is_told() -> None:
    assert dict(retry_headers(Failure(code=Code.overloaded.value, message="")))[b"x-should-retry"] == b"true"
    assert retry_headers(Failure(code=Code.idempotency_key_reused.value, message="")) == []


def test_billed_work_is_not_to_be_sent_again() -> None:
    failure = Failure(code=Code.deadline_exceeded.value, message="", should_retry=False)
    assert retry_headers(failure) == [(b"x-should-retry", b"false")]


def test_a_busy_answer_says_when_to_come_back_even_if_nobody_computed_it() -> None:
    assert dict(retry_headers(Failure(code=Code.no_engine.value, message="")))[b"retry-after"] == b"2"
    assert retry_headers(Failure(code=Code.invalid_api_key.value, message="")) == []


def test_the_error_event_is_one_line_whatever_the_message_holds() -> None:
    event = error_event(Failure(code=Code.upstream_interrupted.value, message="a\nb\r\u2028data: [DONE]\n\n"))
    assert event.startswith(b'data: {"error":{')
    assert event.endswith(b"}}\n\n")
    assert b"\n" not in event[:-2]
    assert b"\r" not in event


def test_foreign_exceptions_tell_nothing_of_the_inside() -> None:
    assert failure_of(KeyError("secret")).code == Code.internal_error
    assert "secret" not in failure_of(KeyError("secret")).message
    assert failure_of(DecodeError("secret")).code == Code.internal_error
    assert failure_of(Unavailable("redis://secret")).code == Code.store_unavailable
    assert "secret" not in failure_of(Unavailable("redis://secret")).message
    assert failure_of(Refusal.of(Code.overloaded, "full")).message == "full"
