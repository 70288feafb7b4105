"""The official client's Responses over an engine that speaks chat only: what is asked reaches the engine as a chat, and
what the engine says comes back as the client expects a response."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

from tests.e2e.house import House, command, until
from tests.e2e.scripted import CUT, ScriptedEngine, chunked, completion, event, unary, whole_stream

MODEL = "lab/scripted"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "What it is like outside",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


class Sky(BaseModel):
    colour: str


def test_whole_response_comes_back_and_the_engine_was_asked_a_chat(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(unary(completion("grüß dich", reasoning_content="be nice")))
    answer = client.responses.create(
        model=MODEL, input="Say hello", instructions="Be kind", max_output_tokens=50, store=False
    )
    assert (answer.output_text, answer.model, answer.status) == ("grüß dich", MODEL, "completed")
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.usage is not None and answer.usage.total_tokens == 10
    sent = lab.last.json
    assert lab.last.path.endswith("/chat/completions") and sent["max_tokens"] == 50 and "store" not in sent
    assert sent["messages"] == [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Say hello"}]


def test_streamed_response_is_gathered_by_the_client_to_what_it_says_at_the_end(
    client: OpenAI, lab: ScriptedEngine
) -> None:
    lab.play(whole_stream({"role": "assistant", "content": ""}, {"reasoning": "hm"}, "one ", "two ", "three"))
    with client.responses.stream(model=MODEL, input="count") as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
    assert deltas == ["one ", "two ", "three"] and final.output_text == "one two three"
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert lab.last.json["stream_options"] == {"include_usage": True}


def test_functions_are_called_and_their_outputs_go_back(client: OpenAI, lab: ScriptedEngine) -> None:
    begin = {"id": "call_9", "type": "function", "function": {"name": "weather", "arguments": ""}}
    pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": one}}]} for one in ('{"ci', 'ty": "Köln"}')]
    lab.play(whole_stream({"tool_calls": [{"index": 0, **begin}]}, *pieces, finish="tool_calls"))
    with client.responses.stream(model=MODEL, input="How is it?", tools=[WEATHER]) as stream:
        first = stream.get_final_response()
    (call,) = first.output
    assert call.type == "function_call" and (call.call_id, call.arguments) == ("call_9", '{"city": "Köln"}')
    lab.play(unary(completion("grey")))
    history: Any = [
        {"role": "user", "content": "How is it?"},
        call.to_dict(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "clouds"},
    ]
    assert client.responses.create(model=MODEL, input=history, tools=[WEATHER]).output_text == "grey"
    _, asked, answered = lab.last.json["messages"]
    assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert answered == {"role": "tool", "tool_call_id": "call_9", "content": "clouds"}
    assert lab.last.json["tools"][0]["function"]["name"] == "weather"


def test_a_shape_is_asked_of_the_engine_and_parsed_by_the_client(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(unary(completion('{"colour": "blue"}')))
    answer = client.responses.parse(model=MODEL, input="sky?", text_format=Sky)
    assert answer.output_parsed == Sky(colour="blue")
    shape = lab.last.json["response_format"]
    assert shape["type"] == "json_schema" and shape["json_schema"]["name"] == "Sky" and shape["json_schema"]["strict"]


def test_a_tool_that_no_engine_here_runs_is_refused_by_its_place(client: OpenAI, lab: ScriptedEngine) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="news?", tools=[WEATHER, {"type": "web_search"}])
    assert caught.value.param == "tools[1].type" and "web_search" in caught.value.message
    assert lab.requests == []


def test_a_response_that_breaks_off_is_failed_and_keeps_what_was_said(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(chunked(event("one "), event("two"), CUT))
    events = list(client.responses.create(model=MODEL, input="count", stream=True))
    last = events[-1]
    assert last.type == "response.failed" and last.response.output_text == "one two"
    assert last.response.error is not None and "broke off" in last.response.error.message
    assert [one.sequence_number for one in events] == list(range(len(events)))


def test_a_response_cut_by_its_bound_is_incomplete(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(whole_stream("one", finish="length"))
    last = list(client.responses.create(model=MODEL, input="count", stream=True))[-1]
    assert last.type == "response.incomplete" and last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


def test_guards_read_every_place_of_a_response_that_holds_text(client: OpenAI, lab: ScriptedEngine) -> None:
    mail = "ann@example.com"
    history: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": f"write to {mail}"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": f'{{"to": "{mail}"}}'},
        {"type": "function_call_output", "call_id": "c", "output": f"sent to {mail}"},
    ]
    tool: FunctionToolParam = {"type": "function", "name": "f", "description": mail, "parameters": {}, "strict": False}
    lab.play(unary(completion("done")))
    answer = client.responses.create(model="guarded", input=history, instructions=f"As {mail}", tools=[tool])
    assert answer.output_text == "done" and mail.encode() not in lab.last.raw
    assert len(lab.last.json["messages"]) == 4
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="guarded", input="my card is 4111 1111 1111 1111")
    assert caught.value.code == "content_policy_violation"
    queued = client.responses.create(model="guarded", input="my card is 4111 1111 1111 1111", background=True)
    until(lambda: client.responses.retrieve(queued.id).status == "failed")
    error = client.responses.retrieve(queued.id).error
    assert error is not None and (error.code, error.type) == ("invalid_prompt", "content_policy_violation")


def test_an_engine_that_speaks_responses_is_asked_there_and_may_run_tools_of_its_own(
    client: OpenAI, house: House, lab: ScriptedEngine
) -> None:
    words = ("--url", lab.url, "--upstream", "engine-name", "--speaks", "chat", "--speaks", "responses", "--wait")
    added = command(house, "models", "add", "able", *words)
    assert added.returncode == 0, added.stderr
    try:
        theirs = {
            "id": "resp_theirs",
            "object": "response",
            "created_at": 5,
            "model": "engine-name",
            "status": "completed",
        }
        part = {"type": "output_text", "text": "news", "annotations": []}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        lab.play(
            unary({**theirs, "output": [message], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True})
        )
        answer = client.responses.create(model="able", input="news?", tools=[{"type": "web_search"}])
        assert (answer.output_text, answer.model) == ("news", "able") and answer.id != "resp_theirs"
        assert lab.last.path.endswith("/v1/responses") and lab.last.json["store"] is False
        assert lab.last.json["tools"] == [{"type": "web_search"}] and lab.last.json["model"] == "engine-name"
    finally:
        command(house, "models", "remove", "able")
        until(lambda: "able" not in {model.id for model in client.models.list()})
