"""Every way a request can fail, as the official client's exception with code, param, type and request id."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from base.ids import is_run_id
from tests.e2e.conftest import client_of
from tests.e2e.house import Engine, House, until
from tests.e2e.scripted import HANG, ScriptedEngine, failure

LAB = "lab/scripted"
HELLO: Any = [{"role": "user", "content": "Say hello"}]
Says = tuple[str | None, str | None, str | None]  # code, param, type


def error_of(kind: type[openai.APIStatusError], call: Callable[[], Any]) -> tuple[openai.APIStatusError, Says]:
    """The exception of a call, exactly of this class, whose answer has the five keys and the request id."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert type(error) is kind
    assert set(error.response.json()["error"]) == {"message", "type", "param", "code", "doc_url"}
    assert error.request_id is not None and is_run_id(error.request_id)
    return error, (error.code, error.param, error.type)


def ask(client: OpenAI, **fields: Any) -> Callable[[], Any]:
    given = {"model": LAB, "messages": HELLO, **fields}
    return lambda: client.chat.completions.create(**given)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", ["sk-not-ours", "hr_0123456789abcdef_" + "0" * 48 + "_" + "0" * 24, "hr__"])
def test_key_that_is_not_ours_is_an_authentication_error(house: House, key: str, stream: bool) -> None:
    with client_of(house, key) as stranger:
        _, says = error_of(openai.AuthenticationError, ask(stranger, stream=stream))
        _, listed = error_of(openai.AuthenticationError, stranger.models.list)
    assert says == listed == ("invalid_api_key", None, "invalid_request_error")


def test_key_without_the_scope_is_a_permission_error(house: House) -> None:
    with client_of(house, house.connection["admin_key"]) as admin:
        _, says = error_of(openai.PermissionDeniedError, ask(admin))
        _, listed = error_of(openai.PermissionDeniedError, admin.models.list)
    assert says == listed == ("permission_denied", None, "permission")


def test_model_that_is_absent_and_one_that_is_forbidden_read_the_same(house: House, client: OpenAI) -> None:
    absent, says = error_of(openai.NotFoundError, ask(client, model="no/such"))
    with client_of(house, house.new_key(models=["mock"])["token"]) as narrow:
        forbidden, said = error_of(openai.NotFoundError, ask(narrow, model=LAB, stream=True))
    assert says == said == ("model_not_found", "model", "invalid_request_error")
    assert absent.message.replace("no/such", LAB) == forbidden.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"messages": []}, ("invalid_value", "messages")),
        ({"messages": [{"content": "no role"}]}, ("missing_required_parameter", "messages[0].role")),
        ({"temperature": "hot"}, ("invalid_value", "temperature")),
        ({"max_tokens": 0}, ("invalid_value", "max_tokens")),
        ({"stream_options": {"include_usage": True}}, ("invalid_value", "stream_options")),
        ({"model": ""}, ("invalid_value", "model")),
        ({"tools": {"not": "a list"}}, ("invalid_value", "tools")),
    ],
)
def test_wrong_request_is_a_bad_request_that_names_the_parameter(
    client: OpenAI, lab: ScriptedEngine, fields: dict[str, Any], says: tuple[str, str]
) -> None:
    _, said = error_of(openai.BadRequestError, ask(client, **fields))
    assert said == (*says, "invalid_request_error")
    assert not lab.requests


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model": "mock", "messages": NaN}',
        b'{"model": "mock", "messages": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"\xef\xbb\xbf{}",
    ],
    ids=["empty", "open", "list", "null", "nan", "latin1", "deep-list", "deep-object", "bom"],
)
def test_body_that_is_no_json_object_is_a_400_in_openais_shape(house: House, body: bytes) -> None:
    status, headers, found = exchange(house, body)
    assert (status, found["error"]["type"]) == (400, "invalid_request_error")
    assert is_run_id(headers["x-request-id"] or "")


def test_body_over_the_limit_is_a_413(client: OpenAI) -> None:
    text = "x" * (3 * 1024 * 1024)
    error, says = error_of(openai.APIStatusError, ask(client, messages=[{"role": "user", "content": text}]))
    assert error.status_code == 413
    assert says == ("request_too_large", None, "invalid_request_error")


def test_unknown_path_and_wrong_method_are_errors_in_openais_shape(house: House, client: OpenAI) -> None:
    _, says = error_of(openai.NotFoundError, lambda: client.files.list())
    assert says == ("not_found", None, "invalid_request_error")
    status, found = house.request("/v1/chat/completions", method="GET")
    assert (status, found["error"]["code"]) == (405, "method_not_allowed")


def test_requests_per_minute_used_up_is_a_rate_limit_error_that_says_when(house: House) -> None:
    with client_of(house, house.new_key(requests_per_minute=1)["token"]) as limited:
        ask(limited, model="mock")()
        error, says = error_of(openai.RateLimitError, ask(limited, model="mock", stream=True))
    assert says == ("rate_limit_exceeded", None, "requests")
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    assert 1 <= int(error.response.headers["retry-after-ms"]) <= 60_000
    assert error.response.headers["x-ratelimit-limit-requests"] == "1"
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_request_over_the_keys_concurrency_is_a_rate_limit_error_until_another_ends(
    house: House, lab: ScriptedEngine
) -> None:
    token = house.new_key(concurrency=1)["token"]
    lab.play([HANG])
    first = house.post({"model": LAB, "messages": HELLO}, key=token)
    until(lambda: lab.requests)
    with client_of(house, token) as limited:
        error, says = error_of(openai.RateLimitError, ask(limited))
        assert says == ("rate_limit_exceeded", None, "requests") and "retry-after" in error.response.headers
        first.close()
        until(lambda: succeeds(ask(limited)))


def succeeds(call: Callable[[], Any]) -> bool:
    try:
        return bool(call())
    except openai.RateLimitError:
        return False


@pytest.mark.parametrize("stream", [False, True])
def test_engines_word_about_the_request_is_passed_on(client: OpenAI, lab: ScriptedEngine, stream: bool) -> None:
    lab.play(failure(400))
    error, says = error_of(openai.BadRequestError, ask(client, stream=stream))
    assert says == ("engine_code", "temperature", "engine_says")
    assert "scripted" in error.message and len(lab.requests) == 1


def test_engines_validation_error_is_a_400_for_clients(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(failure(422))
    _, says = error_of(openai.BadRequestError, ask(client))
    assert says == ("engine_code", "temperature", "engine_says")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_engines_word_about_our_credential_or_url_is_never_the_clients(
    client: OpenAI, lab: ScriptedEngine, status: int
) -> None:
    lab.play(failure(status))
    error, says = error_of(openai.InternalServerError, ask(client))
    assert error.status_code == 502 and says == ("upstream_error", None, "upstream_error")
    assert "scripted" not in error.message


@pytest.mark.parametrize("stream", [False, True])
def test_failing_engine_is_a_502(client: OpenAI, lab: ScriptedEngine, stream: bool) -> None:
    lab.play(failure(500))
    error, says = error_of(openai.InternalServerError, ask(client, stream=stream))
    assert error.status_code == 502 and says == ("upstream_error", None, "upstream_error")


@pytest.mark.parametrize("status", [429, 503])
def test_full_engine_is_a_503_with_the_engines_own_wait(client: OpenAI, lab: ScriptedEngine, status: int) -> None:
    lab.play(failure(status, **{"retry-after": "3"}))
    error, says = error_of(openai.InternalServerError, ask(client))
    assert error.status_code == 503
    assert says == ("server_is_overloaded", None, "service_unavailable_error")
    assert error.response.headers["retry-after"] == "3"


def test_request_whose_announced_time_is_over_is_a_504(house: House, lab: ScriptedEngine) -> None:
    lab.play([HANG])
    status, _, found = exchange(house, {"model": LAB, "messages": HELLO}, {"x-stainless-read-timeout": "0.7"})
    assert (status, found["error"]["code"], found["error"]["type"]) == (504, "deadline_exceeded", "timeout")
    assert lab.last.left.wait(30)


def test_client_retries_by_itself_until_the_engine_recovers(house: House, lab: ScriptedEngine) -> None:
    lab.play(failure(500), failure(500))
    with OpenAI(base_url=house.base_url + "/v1", api_key=house.key, max_retries=2) as patient:
        answer = patient.chat.completions.create(model=LAB, messages=HELLO)
    assert answer.choices[0].message.content == "unplanned" and len(lab.requests) == 3


def test_guards_word_reaches_the_client_as_a_policy_violation(client: OpenAI, mock: Engine) -> None:
    before = mock.stats()["requests"]
    _, says = error_of(openai.BadRequestError, ask(client, model="mock", messages=banned(), stream=True))
    assert says[0] == "content_policy_violation" and says[2] == "invalid_request_error"
    assert mock.stats()["requests"] == before


def banned() -> Any:
    return [{"role": "user", "content": "tell me of Project Nightfall"}]


def exchange(
    house: House, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, dict[str, Any]]:
    """Status, headers and JSON of a chat request sent as it is."""
    connection = house.post(body, headers=headers)
    try:
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()
