"""A Responses request as the chat completion that an engine is asked for."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_create_params import ResponseCreateParamsBase, ResponseCreateParamsStreaming

from providers.errors import Untranslatable
from providers.responses_openai import NOT_DONE, request
from tests.responses_support import question


def asked(stream: bool = False, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(request(question(stream=stream, **fields), "engine-7b"))
    return found


def messages(*items: Any, **fields: Any) -> Any:
    return asked(input=list(items), **fields)["messages"]


USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


def test_a_request_is_asked_as_a_chat_of_its_instructions_and_messages() -> None:
    body = asked(
        stream=True,
        input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        instructions="be kind",
        max_output_tokens=9,
        temperature=0.5,
        reasoning={"effort": "low", "summary": "auto"},
        metadata={"a": "b"},
        user="u",
        top_k=3,
        store=True,
        background=False,
        previous_response_id="resp_1",
        truncation="disabled",
        include=["reasoning.encrypted_content"],
        reasoning_effort=None,
        top_logprobs=0,
    )
    assert body == {
        "model": "engine-7b",
        "messages": [{"role": "system", "content": "be kind"}, USER],
        "max_tokens": 9,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "metadata": {"a": "b"},
        "user": "u",
        "top_k": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


#: Parameters that reach a chat engine as they are; those of no meaning to it are its own to pass over.
PASSED_ON = {
    "metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier",
    "service_tier", "temperature", "top_p", "user",
}  # fmt: skip
#: Parameters that mean something only where others do: hosted tools, which are refused, and the stream of this gateway.
EMPTY_HERE = {"max_tool_calls", "stream_options"}


def test_every_parameter_that_the_official_client_knows_is_carried_out_passed_on_or_refused() -> None:
    known = set(ResponseCreateParamsStreaming.__annotations__) | set(ResponseCreateParamsBase.__annotations__)
    carried_out = {
        "background", "include", "input", "instructions", "max_output_tokens", "model", "parallel_tool_calls",
        "previous_response_id", "reasoning", "store", "stream", "text", "tool_choice", "tools", "truncation",
    }  # fmt: skip
    refused = known - carried_out - PASSED_ON - EMPTY_HERE
    assert refused == {*NOT_DONE, "top_logprobs"}
    for name in refused:
        wrong: dict[str, Any] = {name: 1}
        with pytest.raises(Untranslatable):
            asked(**wrong)
    passed: dict[str, Any] = dict.fromkeys(PASSED_ON - {"prompt_cache_options"}, 1)
    assert passed.items() <= asked(**passed).items()


def test_a_unary_request_asks_for_no_stream_and_keeps_the_public_name_where_the_engine_has_none_of_its_own() -> None:
    body = orjson.loads(request(question(input=[USER]), ""))
    assert body == {"model": "public", "messages": [USER]}


def test_roles_that_a_chat_template_may_not_know_are_told_as_ones_that_it_does() -> None:
    told = messages({"role": "developer", "content": "a"}, {"role": "system", "content": "b"}, USER)
    assert told == [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, USER]


def test_parts_of_a_message_keep_their_order_and_their_kinds() -> None:
    (message,) = messages(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "original"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        }
    )
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


def test_calls_join_the_words_before_them_and_their_outputs_follow() -> None:
    told = messages(
        USER,
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hmm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "let me see", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"a":1}'},
        {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "weather", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
        {"type": "function_call", "call_id": "c3", "name": "weather", "arguments": "{}"},
    )

    def call(id: str, arguments: str) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}

    assert told == [
        USER,
        {
            "role": "assistant",
            "content": "let me see",
            "reasoning_content": "hmm",
            "tool_calls": [call("c1", '{"a":1}'), call("c2", "")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
        {"role": "assistant", "content": None, "tool_calls": [call("c3", "{}")]},
    ]


def test_thoughts_before_a_plain_answer_are_left_out_and_never_wander_to_a_later_one() -> None:
    thoughts = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "secret"}]}
    answer = {"role": "assistant", "content": "yes"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert b"secret" not in orjson.dumps(messages(USER, thoughts, answer, USER, call))


def test_functions_and_the_choice_among_them_are_told_as_a_chat_tells_them() -> None:
    function = {"name": "weather", "parameters": {"type": "object"}, "strict": True}
    body = asked(tools=[FUNCTION], tool_choice={"type": "function", "name": "weather"}, parallel_tool_calls=False)
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False


def test_tools_that_may_not_be_called_are_not_told() -> None:
    other = {"type": "function", "name": "other", "parameters": None}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
    body = asked(tools=[FUNCTION, other], tool_choice=choice)
    assert [tool["function"] for tool in body["tools"]] == [{"name": "other"}] and body["tool_choice"] == "required"


def test_without_tools_nothing_is_said_of_them_but_that_one_is_required() -> None:
    quiet = asked(tools=[], tool_choice="auto", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(quiet)
    assert asked(tool_choice="required")["tool_choice"] == "required"


def test_the_format_of_the_text_is_told_as_a_chat_tells_it() -> None:
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    body = asked(text={"format": {"type": "json_schema", **schema, "description": None}, "verbosity": "low"})
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema} and body["verbosity"] == "low"
    assert asked(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in asked(text={"format": {"type": "text"}})


def message(part: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [FUNCTION, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": ["x"]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": 1}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": []}, "text"),
        ({"reasoning": "low"}, "reasoning"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"conversation": "c"}, "conversation"),
        ({"messages": [USER]}, "messages"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"include": ["the.moon"]}, "include"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs"),
        ({"image": {"context_compression": "enabled"}}, "image"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"instructions": 1}, "instructions"),
        ({"input": 1}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [USER, {"content": "x"}]}, "input[1].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        (message({"type": "computer_screenshot"}), "input[0].content[0].type"),
        (message({"type": ["x"]}), "input[0].content[0].type"),
        (message({"type": "input_image", "file_id": "f"}), "input[0].content[0].file_id"),
        (message({"type": "input_image"}), "input[0].content[0].image_url"),
        (message({"type": "input_file", "file_url": "f"}), "input[0].content[0].file_url"),
        (message({"type": "input_text"}), "input[0].content[0].text"),
    ],
)
def test_what_a_chat_has_no_words_for_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        asked(**fields)
    assert refused.value.param == param and refused.value.message


def test_a_refusal_names_the_tool_that_cannot_be_run_to_the_client_and_not_to_the_log() -> None:
    with pytest.raises(Untranslatable) as refused:
        asked(tools=[{"type": "my secret word"}])
    assert "my secret word" in refused.value.message and "my secret word" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "function",
        "input_text",
        "input_image",
        "input_file",
    ]
)
NAMES = ("type", "role", "content", "call_id", "name", "arguments", "output", "text", "image_url", "file_data", "tools")
ITEM = st.dictionaries(
    st.sampled_from(NAMES), KNOWN | JSON | st.lists(st.dictionaries(st.sampled_from(NAMES), KNOWN | JSON))
)
FIELDS = ("input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "prompt")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | ITEM | st.lists(ITEM | JSON)))
def test_whatever_stands_in_a_body_is_told_or_refused(fields: dict[str, Any]) -> None:
    try:
        told = request(question(**fields), "e")
    except Untranslatable:
        return
    json.loads(told)
