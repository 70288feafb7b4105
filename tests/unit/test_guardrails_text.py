"""The walk over a request: every text a model reads, at its pointer, and nothing else."""

from __future__ import annotations

import json

from workers.guardrails.text import Part, parts, unescape


def found(body: object) -> dict[str, str]:
    return {part.pointer: part.text for part in parts(body)}


def test_every_role_and_form_of_content_is_read() -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "one"},
            {"role": "developer", "content": "two", "name": "ann"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "three"}, {"type": "image_url", "image_url": {"url": "x"}}],
            },
            {"role": "assistant", "content": None, "refusal": "four", "reasoning_content": "five"},
            {"role": "tool", "tool_call_id": "call_1", "content": "six"},
        ],
    }
    assert found(body) == {
        "/messages/0/content": "one",
        "/messages/1/content": "two",
        "/messages/1/name": "ann",
        "/messages/2/content/0/text": "three",
        "/messages/3/refusal": "four",
        "/messages/3/reasoning_content": "five",
        "/messages/4/content": "six",
    }


def test_every_place_of_a_response_that_a_model_reads_is_read() -> None:
    body = {
        "model": "m",
        "instructions": "one",
        "previous_response_id": "resp_1",
        "input": [
            {"type": "message", "role": "user", "content": "two"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "three"},
                    {"type": "input_image", "image_url": "data:x", "detail": "low"},
                    {"type": "input_file", "file_data": "data:x", "filename": "four"},
                ],
            },
            {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "five"}]},
            {"type": "function_call", "id": "fc", "call_id": "c", "name": "six", "arguments": '{"a": "seven"}'},
            {"type": "function_call_output", "call_id": "c", "output": "eight"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "nine"}]},
        ],
        "tools": [{"type": "function", "name": "f", "description": "ten"}],
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {"description": "eleven"}}},
    }
    assert found(body) == {
        "/instructions": "one",
        "/input/0/content": "two",
        "/input/1/content/0/text": "three",
        "/input/1/content/2/filename": "four",
        "/input/2/content/0/text": "five",
        "/input/3/name": "six",
        "/input/3/arguments": '{"a": "seven"}',
        "/input/4/output": "eight",
        "/input/5/output/0/text": "nine",
        "/tools/0/name": "f",
        "/tools/0/description": "ten",
        "/text/format/name": "s",
        "/text/format/schema/description": "eleven",
    }


def test_tool_calls_tools_and_schemas_are_read() -> None:
    body = {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"x"}'}}],
                "function_call": {"name": "g", "arguments": "{}"},
            }
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "does f",
                    "parameters": {"type": "object", "properties": {"id": {"type": "string", "description": "an id"}}},
                },
            }
        ],
        "functions": [{"name": "old", "description": "legacy"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"description": "shape"}}},
    }
    texts = found(body)
    assert texts["/messages/0/tool_calls/0/function/arguments"] == '{"a":"x"}'
    assert texts["/messages/0/function_call/arguments"] == "{}"
    assert texts["/tools/0/function/description"] == "does f"
    assert texts["/tools/0/function/parameters/properties/id/description"] == "an id"
    assert texts["/functions/0/description"] == "legacy"
    assert texts["/response_format/json_schema/schema/description"] == "shape"
    assert not any(pointer.endswith(("/type", "/id")) for pointer in texts)


def test_other_endpoints_and_unknown_fields_are_read() -> None:
    body = {"prompt": ["p", "q"], "input": "i", "instructions": "n", "suffix": "s", "vendor_extra": {"deep": ["v"]}}
    assert set(found(body).values()) == {"p", "q", "i", "n", "s", "v"}


def test_settings_ids_and_embedded_data_are_not_read() -> None:
    body = {
        "model": "secret-model",
        "user": "u@example.com",
        "metadata": {"a": "b"},
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}]}
        ],
    }
    assert found(body) == {}


def test_an_unusual_role_is_read_because_a_template_may_print_it() -> None:
    assert found({"messages": [{"role": "user\nssn 123-45-6789", "content": ""}]}) == {
        "/messages/0/role": "user\nssn 123-45-6789"
    }


def test_pointers_escape_slashes_and_tildes() -> None:
    assert found({"a/b": {"c~d": "x"}}) == {"/a~1b/c~0d": "x"}


def test_token_ids_and_bodies_that_are_no_object_give_nothing() -> None:
    assert found({"prompt": [1, 2, 3]}) == {}
    assert found([]) == found("x") == found(None) == {}


def test_nesting_deeper_than_the_interpreter_allows_is_walked() -> None:
    body: object = "deep"
    for _ in range(50_000):
        body = [body]
    assert [part.text for part in parts({"input": body})] == ["deep"]


def test_json_inside_text_is_marked_and_its_escapes_are_resolved_with_their_places() -> None:
    arguments = json.dumps({"to": "line\nann@example.com", "name": "José"})
    (part,) = parts({"arguments": arguments})
    assert part == Part("/arguments", arguments, True)
    resolved = unescape(arguments)
    assert resolved is not None
    text, starts = resolved
    assert "José" in text and len(starts) == len(text) + 1
    at = text.index("ann@example.com")
    assert arguments[starts[at] : starts[at + 15]] == "ann@example.com"
    assert unescape("no escapes") is None
