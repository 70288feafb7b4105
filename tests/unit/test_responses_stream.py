"""A chat's chunks as the events of a response: what the official client hears is what the object at the end says."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import BadResponse, Broken, EngineError
from providers.responses_chunks import ResponseStream, answer
from schemas.events import Usage
from tests.responses_support import call, delta, events_of, heard, question, told, valid

ROLE = delta(role="assistant", content="")
USAGE = json.dumps(
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }
)


def stream_of(*chunks: str, **fields: Any) -> tuple[list[dict[str, Any]], ResponseStream]:
    stream = ResponseStream(question(stream=True, **fields))
    return events_of(told(stream, (*chunks, "[DONE]"))), stream


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_words_become_the_events_of_one_message() -> None:
    events, stream = stream_of(ROLE, delta(content="he"), delta(content="llo"), delta("stop"), USAGE)
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    response = valid(events[-1]["response"])
    assert response.output_text == "hello" and response.status == "completed" and response.model == "public"
    assert response.usage is not None and response.usage.to_dict() == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    assert stream.usage == Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=3)
    assert (stream.pieces, stream.finish_reason) == (2, "stop")


def test_ids_come_from_the_run_and_the_time_is_that_of_its_acceptance() -> None:
    asked = question(stream=True)
    stream = ResponseStream(asked)
    chunks = (delta(reasoning="a"), delta(content="b"), delta(tool_calls=[call(0, "", "c1", "f")]), delta("tool_calls"))
    response = events_of(told(stream, chunks))[-1]["response"]
    tail = asked.run.replace("-", "")
    assert response["id"] == f"resp_{tail}" and response["created_at"] == 1_700_000_000
    assert [item["id"] for item in response["output"]] == [f"rs_{tail}_0", f"msg_{tail}_1", f"fc_{tail}_2"]


def test_a_complete_answer_says_when_it_was_and_no_other_does() -> None:
    for finish, shown in (("stop", 1_700_000_009), ("length", None)):
        stream = ResponseStream(question(stream=True))
        out = stream.take(delta(finish, content="x").encode()) or b""
        events = events_of(out + stream.ending(1_700_000_009_900))
        assert events[0]["response"]["completed_at"] is None and events[-1]["response"]["completed_at"] == shown


def test_what_was_asked_is_shown_in_every_response_object() -> None:
    said = {
        "instructions": "be kind",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "previous_response_id": "resp_1",
        "temperature": 0.5,
        "tool_choice": "none",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
        "top_p": 0.9,
        "user": "u",
        "store": True,
        "background": True,
        "text": {"format": {"type": "json_object"}, "verbosity": None},
        "reasoning": {"effort": "low"},
    }
    events, _ = stream_of(ROLE, delta("stop"), **said)
    for event in (events[0], events[1], events[-1]):
        shown = event["response"]
        assert {name: shown[name] for name in said if name not in ("text", "reasoning")} == {
            name: value for name, value in said.items() if name not in ("text", "reasoning")
        }
        assert shown["text"] == {"format": {"type": "json_object"}}
        assert shown["reasoning"] == {"effort": "low", "summary": None}
    assert [event["response"]["status"] for event in events if "response" in event] == [
        "in_progress",
        "in_progress",
        "completed",
    ]


def test_thoughts_words_and_a_refusal_are_parts_of_their_own() -> None:
    events, _ = stream_of(
        delta(reasoning_content="hm", reasoning="hm"), delta(content="I "), delta(refusal="won't"), delta("stop")
    )
    response = valid(events[-1]["response"])
    thought, message = response.output
    assert thought.type == "reasoning" and thought.content is not None and thought.content[0].text == "hm"
    assert message.type == "message" and [part.type for part in message.content] == ["output_text", "refusal"]
    assert "reasoning_text.delta" in types(events) and "refusal.done" in types(events)
    assert types(events).count("output_item.done") == 2


def test_calls_of_functions_are_items_however_the_engine_cuts_them() -> None:
    events, stream = stream_of(
        delta(tool_calls=[call(0, "", "c1", "weather")]),
        delta(tool_calls=[call(0, '{"a"'), call(1, '{"b":', "c2", "time")]),
        delta(tool_calls=[call(0, ":1}")]),
        delta(tool_calls=[call(1, "2}")]),
        delta("tool_calls"),
    )
    response = valid(events[-1]["response"])
    said = [(one.call_id, one.name, one.arguments) for one in response.output if one.type == "function_call"]
    assert said == [("c1", "weather", '{"a":1}'), ("c2", "time", '{"b":2}')]
    assert stream.pieces == 4 and response.status == "completed"


def test_calls_that_all_have_number_zero_are_told_apart_by_their_ids() -> None:
    events, _ = stream_of(
        delta(tool_calls=[call(0, "{}", "c1", "f")]), delta(tool_calls=[call(0, "[]", "c2", "g")]), delta("tool_calls")
    )
    assert [one["name"] for one in events[-1]["response"]["output"]] == ["f", "g"]


def test_a_call_is_told_once_its_name_is_known_and_has_an_id_when_the_engine_gives_none() -> None:
    events, _ = stream_of(
        delta(tool_calls=[call(0, '{"a":')]), delta(tool_calls=[call(0, "1}", None, "f")]), delta("stop")
    )
    (item,) = events[-1]["response"]["output"]
    assert item["arguments"] == '{"a":1}' and item["call_id"].startswith("call_")
    with pytest.raises(BadResponse):
        stream_of(delta(tool_calls=[call(0, "{}")]), delta("stop"))


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete_and_says_why(finish: str, reason: str) -> None:
    events, _ = stream_of(delta(reasoning="hm"), delta(content="half"), delta(finish))
    last = events[-1]
    response = valid(last["response"])
    assert last["type"] == "response.incomplete" and response.status == "incomplete"
    assert response.incomplete_details is not None and response.incomplete_details.reason == reason
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "incomplete"]


def test_an_answer_without_words_is_an_empty_message() -> None:
    events, _ = stream_of(ROLE, delta("stop"))
    response = valid(events[-1]["response"])
    assert response.output_text == "" and len(response.output) == 1 and response.usage is None


def test_nothing_goes_out_before_the_engine_begins_its_answer() -> None:
    stream = ResponseStream(question(stream=True))
    assert stream.take(b'{"object": "x"}') is None
    with pytest.raises(EngineError):
        stream.take(b'{"error": {"message": "too long", "code": 400}}')
    assert stream.take(ROLE.encode()) is not None and stream.told == 2
    assert stream.take(ROLE.encode()) is None


def test_a_stream_that_breaks_off_is_broken_and_one_without_an_answer_is_none() -> None:
    with pytest.raises(Broken):
        told(ResponseStream(question()), [delta(content="a")])
    with pytest.raises(BadResponse):
        told(ResponseStream(question()), ["[DONE]"])
    assert told(ResponseStream(question()), [delta(content="a"), "[DONE]", delta(content="b")])


@pytest.mark.parametrize(
    "data", [b"{", b"\xff", b"[]", b'{"choices": 1}', b'{"choices": [{"delta": {"content": 1}}]}', b"[" * 9999]
)
def test_what_cannot_be_understood_is_never_told(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseStream(question()).take(data)


def test_half_an_emoji_does_not_break_the_answer() -> None:
    chunk = delta(content="XX").replace("XX", r"\ud83d\ude00 \ud83d")
    events, _ = stream_of(chunk, delta("stop"))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "\U0001f600 \ufffd"


def test_a_text_in_parts_is_told_as_a_text() -> None:
    events, _ = stream_of(delta(content=[{"type": "text", "text": "he"}, {"type": "text", "text": "y"}]), delta("stop"))
    assert valid(events[-1]["response"]).output_text == "hey"


PIECE = st.text(min_size=0, max_size=6)
WORDS = st.one_of(
    PIECE.map(lambda text: delta(content=text)),
    PIECE.map(lambda text: delta(reasoning_content=text)),
    PIECE.map(lambda text: delta(refusal=text)),
    PIECE.map(lambda text: delta(content=text, reasoning=text)),
)
CALLS = st.tuples(st.integers(0, 2), PIECE).map(
    lambda made: delta(tool_calls=[call(made[0], made[1], f"c{made[0]}", f"f{made[0]}")])
)
FINISH = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])


def gathered(response: dict[str, Any]) -> list[Any]:
    """What deltas say: they carry no status and no thoughts of a finished item."""
    return [
        [item["arguments"], item["name"], item["call_id"]]
        if item["type"] == "function_call"
        else [part.get("text") for part in item["content"] if "text" in part]
        if item["type"] == "message"
        else item["id"]
        for item in response["output"]
    ]


@given(st.lists(WORDS | CALLS, max_size=12), FINISH, st.booleans())
def test_what_the_official_client_gathers_is_what_the_last_event_says(
    said: list[str], finish: str, counted: bool
) -> None:
    events, stream = stream_of(*said, delta(finish), *([USAGE] if counted else []))
    final = events[-1]["response"]
    valid(final)
    assert gathered(heard(events)) == gathered(final)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert sorted(done, key=lambda item: final["output"].index(item)) == final["output"]
    assert (stream.usage is not None) == counted
    assert stream.pieces == sum(any(json.loads(chunk)["choices"][0]["delta"].values()) for chunk in said)


def whole(**message: Any) -> bytes:
    finish = message.pop("finish", "stop")
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return orjson.dumps({"id": "c", "model": "engine-7b", "choices": [choice], "usage": json.loads(USAGE)["usage"]})


def test_a_whole_answer_is_the_same_response_as_its_stream() -> None:
    asked = question(instructions="x")
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    found = answer(asked, whole(content="hello", reasoning_content="hm", tool_calls=calls))
    stream = ResponseStream(asked)
    pieces = (
        delta(reasoning="h"),
        delta(reasoning="m"),
        delta(content="hel"),
        delta(content="lo"),
        delta(tool_calls=[call(0, '{"a":1}', "c1", "f")]),
        delta("stop"),
        USAGE,
    )
    streamed = events_of(told(stream, pieces))[-1]["response"]
    assert orjson.loads(found.body) == streamed
    assert valid(streamed).status == "completed"
    assert found.usage == Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=3)
    assert found.finish_reason == "stop"


@pytest.mark.parametrize("body", [b"{}", b'{"choices": []}', b"x", b'{"choices": [{"message": {"content": 7}}]}'])
def test_a_whole_answer_that_is_none_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse):
        answer(question(), body)


def test_an_error_instead_of_a_whole_answer_is_the_engines() -> None:
    with pytest.raises(EngineError):
        answer(question(), b'{"error": {"message": "no"}}')
