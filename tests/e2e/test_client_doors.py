"""The official client on the other routes that start work: completions, embeddings, moderations."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.conftest import client_of
from tests.e2e.house import Engine, House, until
from tests.e2e.scripted import DONE, USAGE, ScriptedEngine, chunked, event, failure, unary

MODEL = "lab/scripted"
CARD = "4111 1111 1111 1111"
MAIL = "jane.doe@example.org"


def text_answer(text: str) -> dict[str, Any]:
    """The body of a good unary completion."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    kind = {"id": "cmpl-scripted", "object": "text_completion", "created": 1_700_000_000, "model": "engine-name"}
    return {**kind, "choices": [choice], "usage": USAGE}


def text_event(text: str, finish: str | None = None) -> bytes:
    """One event of a streamed completion."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return event(None, object="text_completion", choices=[choice])


def vectors(*rows: list[float] | str) -> dict[str, Any]:
    """The body of a good embeddings answer."""
    data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "data": data, "model": "engine-name", "usage": usage}


# --- completions ---------------------------------------------------------------------------------------------------


def test_whole_completion_reaches_the_engine_as_it_was_sent(client: OpenAI, house: House, lab: ScriptedEngine) -> None:
    lab.play(unary(text_answer(" to the mill")))
    raw = client.completions.with_raw_response.create(
        model=MODEL, prompt=["Water flows", "It falls"], echo=True, n=2, suffix="...", extra_body={"min_p": 0.1}
    )
    answer = raw.parse()
    assert (answer.model, answer.choices[0].text, answer.usage and answer.usage.total_tokens) == (
        MODEL,
        " to the mill",
        10,
    )
    sent = lab.last.json
    assert lab.last.path == "/v1/completions" and sent.pop("model") == "engine-name"
    assert sent == {"prompt": ["Water flows", "It falls"], "echo": True, "n": 2, "suffix": "...", "min_p": 0.1}
    row = house.record(raw.headers["x-request-id"])
    assert (row["route"], row["prompt_tokens"], row["completion_tokens"]) == ("/v1/completions", 7, 3)


@pytest.mark.parametrize("asked", [True, False])
def test_streamed_completion_shows_usage_only_when_it_is_wanted(
    client: OpenAI, house: House, lab: ScriptedEngine, asked: bool
) -> None:
    lab.play(chunked(text_event("one "), text_event("two"), text_event("", "stop"), event(None, usage=USAGE), DONE))
    wanted: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    stream = client.completions.create(model=MODEL, prompt="Count", stream=True, **wanted)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "one two"
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([10] if asked else [])
    row = house.record(stream.response.headers["x-request-id"])
    assert (row["completion_tokens"], row["estimated"], row["finish_reason"]) == (3, False, "stop")


def test_completion_without_the_engines_count_is_estimated_from_its_text(
    client: OpenAI, house: House, lab: ScriptedEngine
) -> None:
    lab.play(chunked(text_event("one "), text_event("two"), text_event("", "stop"), DONE))
    stream = client.completions.create(model=MODEL, prompt="Count", stream=True)
    list(stream)
    row = house.record(stream.response.headers["x-request-id"])
    assert (row["completion_tokens"], row["estimated"]) == (2, True)


def test_completion_that_breaks_off_ends_with_an_error(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(chunked(text_event("one ")))
    with pytest.raises(openai.APIError) as caught:
        list(client.completions.create(model=MODEL, prompt="Count", stream=True))
    assert caught.value.code == "upstream_interrupted"


@pytest.mark.parametrize("prompt", [f"write to {MAIL}", ["hello", f"write to {MAIL}"]], ids=["text", "list"])
def test_prompts_are_redacted_like_messages(client: OpenAI, lab: ScriptedEngine, prompt: str | list[str]) -> None:
    lab.play(unary(text_answer("ok")))
    client.completions.create(model="guarded", prompt=prompt)
    assert MAIL not in lab.last.raw.decode() and "write to [EMAIL]" in str(lab.last.json["prompt"])


def test_blocked_prompt_reaches_no_engine(client: OpenAI, lab: ScriptedEngine) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="guarded", prompt=["hello", f"pay with {CARD}"])
    assert caught.value.code == "content_policy_violation" and not lab.requests


def test_token_ids_pass_only_where_the_policy_lets_them(client: OpenAI, lab: ScriptedEngine) -> None:
    for tokens in ([1, 2, 3], [[1, 2], [3]]):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="guarded", prompt=tokens)
        assert (caught.value.param, "token ids" in caught.value.message) == ("prompt", True)
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="guarded", input=tokens)
        assert caught.value.param == "input"
    assert not lab.requests
    lab.play(unary(text_answer("ok")))
    client.completions.create(model="unread", prompt=[1, 2, 3])
    assert lab.last.json["prompt"] == [1, 2, 3]


def test_mock_engine_streams_and_stops_when_its_client_leaves(client: OpenAI, mock: Engine) -> None:
    before = mock.stats()["aborted"]
    stream = client.completions.create(model="mock", prompt="@@slow go on", stream=True, max_tokens=500)
    assert next(iter(stream)).choices[0].text
    stream.close()
    until(lambda: mock.stats()["aborted"] == before + 1)


# --- embeddings ----------------------------------------------------------------------------------------------------


def test_embeddings_come_as_numbers_whatever_the_wire_carries(client: OpenAI, house: House, mock: Engine) -> None:
    raw = client.embeddings.with_raw_response.create(model="mock", input=["abc", "water"])
    packed = raw.parse()
    plain = client.embeddings.create(model="mock", input=["abc", "water"], encoding_format="float")
    assert packed.model == plain.model == "mock"
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    row = house.record(raw.headers["x-request-id"])
    counted = (row["prompt_tokens"], row["completion_tokens"], row["estimated"], row["cost_micros"])
    assert counted == (2, 0, False, 2)
    assert (row["route"], row["outcome"], row["stream"], row["events"]) == ("/v1/embeddings", "completed", False, 1)


def test_embedding_fields_reach_the_engine_and_its_bytes_the_client(client: OpenAI, lab: ScriptedEngine) -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -1.0)).decode()
    lab.play(unary(vectors(packed)))
    answer = client.embeddings.create(model=MODEL, input="a mill", dimensions=2, user="me", extra_body={"task": "q"})
    assert answer.data[0].embedding == [0.5, -1.0] and answer.usage.prompt_tokens == 5
    sent = lab.last.json
    assert (lab.last.path, sent["encoding_format"]) == ("/v1/embeddings", "base64")
    assert (sent["input"], sent["dimensions"], sent["user"], sent["task"]) == ("a mill", 2, "me", "q")


def test_embedding_input_is_redacted(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(unary(vectors([0.5, 0.5])))
    client.embeddings.create(model="guarded", input=["a mill", f"of {MAIL}"], encoding_format="float")
    assert lab.last.json["input"] == ["a mill", "of [EMAIL]"]


def test_engine_without_embeddings_is_told_as_it_says(client: OpenAI, house: House, lab: ScriptedEngine) -> None:
    lab.play(failure(501))
    with pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model=MODEL, input="a mill")
    error = caught.value
    assert (error.status_code, error.code, error.type) == (501, "engine_code", "engine_says")
    assert "offers this route" in error.message and error.response.headers["x-should-retry"] == "false"
    assert house.record(str(error.request_id))["code"] == "upstream_error"


def test_chat_answer_to_an_embeddings_request_is_no_answer(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(unary(text_answer("what?")))
    with pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model=MODEL, input="a mill")
    assert caught.value.code == "upstream_error"


# --- moderations ---------------------------------------------------------------------------------------------------


def test_moderation_tells_for_each_text_what_the_guardrails_see(client: OpenAI, house: House, mock: Engine) -> None:
    calls = mock.stats()["requests"]
    raw = client.moderations.with_raw_response.create(
        input=["the river is calm", f"my card is {CARD}", f"{MAIL} has card {CARD}"]
    )
    answer = raw.parse()
    run = raw.headers["x-request-id"]
    assert (answer.id, answer.model) == (f"modr-{run}", "moderations")
    found = [{kind for kind, hit in one.categories.model_dump(by_alias=True).items() if hit} for one in answer.results]
    assert found == [set(), {"card"}, {"card", "email"}]
    assert [one.flagged for one in answer.results] == [False, True, True]
    assert answer.results[0].categories.hate is False and answer.results[1].category_scores.hate == 0.0
    assert answer.results[1].category_scores.model_dump()["card"] > 0.5
    assert answer.results[1].category_applied_input_types.hate == []
    assert mock.stats()["requests"] == calls
    row = house.record(run)
    assert (row["route"], row["model"], row["endpoint"]) == ("/v1/moderations", "moderations", "guardrails")
    assert (row["outcome"], row["status"], row["prompt_tokens"], row["cost_micros"]) == ("completed", 200, 0, 0)
    assert raw.headers["x-headrace-run"] == run and raw.headers["x-headrace-endpoint"] == "guardrails"


@pytest.mark.parametrize(
    "given", [f"pay with {CARD}", [{"type": "text", "text": "hello"}, {"type": "text", "text": f"pay with {CARD}"}]]
)
def test_moderation_never_blocks_and_takes_parts_as_one_input(client: OpenAI, given: Any) -> None:
    answer = client.moderations.create(input=given, model="omni-moderation-latest")
    (result,) = answer.results
    assert result.flagged and result.categories.model_dump()["card"] is True


def test_moderation_says_nothing_of_kinds_that_are_not_looked_for(client: OpenAI) -> None:
    (result,) = client.moderations.create(input="John Smith lives here").results
    assert "persons" not in result.categories.model_dump() and not result.flagged


def test_moderation_of_an_image_is_refused(client: OpenAI) -> None:
    image: Any = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.moderations.create(input=image)
    assert caught.value.param == "input[0]"


def test_moderations_are_for_keys_with_the_scope_and_within_their_limits(house: House) -> None:
    narrow = house.new_key(models=["lab/*"], requests_per_minute=1)["token"]
    with client_of(house, narrow) as limited:
        assert limited.moderations.create(input="hello").results[0].flagged is False
        with pytest.raises(openai.RateLimitError):
            limited.moderations.create(input="hello")
    with client_of(house, house.connection["admin_key"]) as admin, pytest.raises(openai.PermissionDeniedError):
        admin.moderations.create(input="hello")
    with client_of(house, house.key[:-1] + "x") as nobody, pytest.raises(openai.AuthenticationError):
        nobody.moderations.create(input="hello")


def test_moderation_can_be_read_again_like_any_run(client: OpenAI, house: House) -> None:
    raw = client.moderations.with_raw_response.create(input=f"pay with {CARD}")
    again = client.get(f"/streams/{raw.headers['x-headrace-run']}", cast_to=str, options={"headers": {"accept": "*/*"}})
    assert f"modr-{raw.headers['x-headrace-run']}" in again
