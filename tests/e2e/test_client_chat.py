"""The official client on the good path: what it sends reaches the engine, what the engine says reaches it."""

from __future__ import annotations

from typing import Any

import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from base.ids import is_run_id
from tests.e2e.conftest import client_of
from tests.e2e.house import Engine, House
from tests.e2e.scripted import ScriptedEngine, completion, unary, whole_stream

MODEL = "lab/scripted"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello"}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "What it is like outside",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "strict": True,
        },
    }
]


def test_unary_answer_comes_back_under_the_name_that_was_asked_for(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(unary(completion("grüß dich")))
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert (answer.model, answer.choices[0].message.content) == (MODEL, "grüß dich")
    assert answer.usage is not None and answer.usage.total_tokens == 10
    assert lab.last.json["model"] == "engine-name"
    assert lab.last.json["messages"] == HELLO


def test_stream_arrives_whole_under_one_id_and_the_public_name(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(whole_stream({"role": "assistant", "content": ""}, "one ", "two ", "three"))
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert {(chunk.id, chunk.model) for chunk in chunks} == {("chatcmpl-scripted", MODEL)}


def test_tool_definitions_reach_the_engine_unchanged(client: OpenAI, lab: ScriptedEngine) -> None:
    history: list[ChatCompletionMessageParam] = [
        *HELLO,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "grey"}'},
    ]
    client.chat.completions.create(
        model=MODEL, messages=history, tools=TOOLS, tool_choice="auto", parallel_tool_calls=False
    )
    sent = lab.last.json
    assert (sent["tools"], sent["tool_choice"], sent["parallel_tool_calls"]) == (TOOLS, "auto", False)
    assert sent["messages"] == history


def test_streamed_tool_calls_come_back_piece_by_piece(client: OpenAI, lab: ScriptedEngine) -> None:
    begin = {"id": "call_9", "type": "function", "function": {"name": "weather", "arguments": ""}}
    pieces = ['{"ci', 'ty": "K', 'öln"}']
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [{"index": 0, **begin}]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    lab.play(whole_stream(*deltas, finish="tool_calls"))
    calls, reasons = [], []
    for chunk in client.chat.completions.create(model=MODEL, messages=HELLO, tools=TOOLS, stream=True):
        calls += chunk.choices[0].delta.tool_calls or []
        reasons.append(chunk.choices[0].finish_reason)
    assert calls[0].id == "call_9" and calls[0].function is not None and calls[0].function.name == "weather"
    assert [call.function.arguments for call in calls if call.function] == ["", *pieces]
    assert reasons[-1] == "tool_calls"


def test_unary_tool_calls_come_back(client: OpenAI, lab: ScriptedEngine) -> None:
    call = {"id": "call_3", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}}
    lab.play(unary(completion("", content=None, tool_calls=[call])))
    message = client.chat.completions.create(model=MODEL, messages=HELLO, tools=TOOLS).choices[0].message
    assert message.content is None and message.tool_calls is not None
    assert message.tool_calls[0].model_dump(exclude_none=True) == call


def test_unknown_fields_pass_in_both_directions(client: OpenAI, lab: ScriptedEngine) -> None:
    extra = {"top_k": 7, "chat_template_kwargs": {"thinking": False, "deep": [1, {"é": None}]}, "min_p": 0.05}
    lab.play(whole_stream({"reasoning_content": "hmm"}, {"content": "yes", "engine_extra": {"a": [1]}}))
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=extra))
    assert {name: lab.last.json[name] for name in extra} == extra
    shown = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks]
    assert shown[0] == {"reasoning_content": "hmm"}
    assert shown[1] == {"content": "yes", "engine_extra": {"a": [1]}}


@pytest.mark.parametrize("asked", [True, False])
def test_usage_is_always_asked_upstream_and_shown_only_when_wanted(
    client: OpenAI, lab: ScriptedEngine, asked: bool
) -> None:
    lab.play(whole_stream("one"))
    wanted: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **wanted))
    assert lab.last.json["stream_options"]["include_usage"] is True
    usages = [chunk.usage.total_tokens for chunk in chunks if chunk.usage is not None]
    assert usages == ([10] if asked else [])
    assert all(chunk.choices for chunk in chunks[:-1]) and bool(chunks[-1].choices) is not asked


def test_engine_is_never_shown_the_callers_key(client: OpenAI, house: House, lab: ScriptedEngine) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO)
    assert "authorization" not in lab.last.headers
    assert house.key not in str(lab.last.headers) + lab.last.raw.decode()


def test_models_are_listed_and_found_also_with_a_slash_in_their_id(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"mock", "lab/scripted", "guarded", "unread", "pair"}
    assert client.models.retrieve("lab/scripted") == listed["lab/scripted"]
    assert listed["mock"].object == "model" and listed["mock"].created > 0


def test_key_sees_only_the_models_it_may_use(house: House) -> None:
    token = house.new_key(models=["lab/*"])["token"]
    with client_of(house, token) as narrow:
        assert [model.id for model in narrow.models.list()] == ["lab/scripted"]
        with pytest.raises(NotFoundError) as caught:
            narrow.models.retrieve("mock")
        assert caught.value.code == "model_not_found"


def test_every_answer_has_its_own_request_id_and_the_time_it_took(client: OpenAI, lab: ScriptedEngine) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    lab.play(whole_stream("one"))
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO, stream=True) as stream:
        streamed = dict(stream.headers)
        stream.read()
    listed = client.models.with_raw_response.list()
    ids = [raw.headers["x-request-id"], streamed["x-request-id"], listed.headers["x-request-id"]]
    assert len(set(ids)) == 3 and all(is_run_id(name) for name in ids)
    assert raw.headers["openai-processing-ms"].isdigit() and streamed["openai-processing-ms"].isdigit()
    assert streamed["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed["cache-control"] == "no-cache" and streamed["x-accel-buffering"] == "no"
    assert raw.headers["x-headrace-endpoint"] == "lab-scripted"


def test_key_with_a_limit_is_told_what_is_left(house: House, mock: Engine) -> None:
    token = house.new_key(requests_per_minute=5)["token"]
    with client_of(house, token) as limited:
        first = limited.chat.completions.with_raw_response.create(model="mock", messages=HELLO)
        second = limited.chat.completions.with_raw_response.create(model="mock", messages=HELLO)
    left = [one.headers["x-ratelimit-remaining-requests"] for one in (first, second)]
    assert first.headers["x-ratelimit-limit-requests"] == "5" and left == ["4", "3"]
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")


def test_key_without_a_limit_hears_nothing_of_limits(client: OpenAI, lab: ScriptedEngine) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    assert not [name for name in raw.headers if name.startswith("x-ratelimit")]
