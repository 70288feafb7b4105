"""The OpenAI dialect: what the engine gets, what the client sees."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import BadResponse, Broken, EngineError
from providers.openai_errors import engine_error, retry_after_ms
from providers.openai_openai import DONE, ChatStream, answer, request, wants_usage
from schemas.events import Usage
from tests.router_support import chunk, completion, usage_chunk


def relayed(stream: ChatStream, *data: str) -> list[Any]:
    events = [stream.take(one.encode()) for one in data]
    return [orjson.loads(event[6:]) for event in events if event is not None]


def test_a_request_takes_the_engines_name_and_asks_for_usage_and_keeps_everything_else() -> None:
    body = orjson.dumps(
        {"model": "public", "messages": [{"x": [1.5, None]}], "top_k": 3, "stream_options": {"other": 1}, "é": "\u2028"}
    )
    sent = orjson.loads(request(body, "engine", stream=True))
    assert sent == {**orjson.loads(body), "model": "engine", "stream_options": {"other": 1, "include_usage": True}}
    assert orjson.loads(request(body, "", stream=False)) == orjson.loads(body)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, [], "x", {"include_usage": None}])
def test_a_client_that_did_not_ask_for_usage_is_known_whatever_it_wrote(options: object) -> None:
    body = orjson.dumps({"stream_options": options})
    assert not wants_usage(body)
    assert orjson.loads(request(body, "", stream=True))["stream_options"]["include_usage"] is True


def test_a_client_that_asked_for_usage_sees_the_usage_chunk() -> None:
    assert wants_usage(b'{"stream_options": {"include_usage": true}}')
    stream = ChatStream("public", show_usage=True)
    events = relayed(stream, chunk("a", usage=None), usage_chunk())
    assert events[1]["usage"]["completion_tokens"] == 2 and events[0]["usage"] is None
    assert stream.usage == Usage(prompt_tokens=7, completion_tokens=2)


def test_usage_is_taken_and_hidden_from_a_client_that_did_not_ask() -> None:
    stream = ChatStream("public", False)
    assert len(relayed(stream, chunk("a", usage=None), usage_chunk())) == 1
    (last,) = relayed(stream, chunk(finish="stop", usage={"prompt_tokens": 9, "completion_tokens": 4}))
    assert "usage" not in last and last["choices"][0]["finish_reason"] == "stop"
    assert stream.usage == Usage(prompt_tokens=9, completion_tokens=4)


NAMES = st.text(max_size=12)


@given(name=NAMES, text=st.text(max_size=30), public=NAMES, spaced=st.booleans())
def test_only_the_models_name_changes_whatever_the_text_says(name: str, text: str, public: str, spaced: bool) -> None:
    text += f'"model":"{name}"' + json.dumps({"model": name})
    given_event = json.loads(chunk(text, model=name))
    stream = ChatStream(public, show_usage=False)
    for _ in range(2):
        data = json.dumps(given_event) if spaced else orjson.dumps(given_event).decode()
        (event,) = relayed(stream, data)
        assert event == {**given_event, "model": public}


def test_a_name_that_stands_twice_is_replaced_at_the_top_only() -> None:
    stream = ChatStream("public", False)
    (event,) = relayed(stream, '{"inner": {"model": "m"}, "model": "m", "choices": []}')
    assert event == {"inner": {"model": "m"}, "model": "public", "choices": []}
    (event,) = relayed(stream, '{"inner": {"model": "m"}, "choices": []}')
    assert event == {"inner": {"model": "m"}, "choices": []}
    (event,) = relayed(stream, '{"\\"model": "m", "choices": []}')
    assert event == {'"model': "m", "choices": []}


@pytest.mark.parametrize(
    "data",
    [
        b'{"a"',
        b"[1]",
        b"null",
        b"1",
        b'{"a": tru}',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": "\xe4\xb8"}',
        b"hello",
        b"{} x",
    ],
)
def test_what_is_not_a_json_object_is_never_passed_on(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ChatStream("public", False).take(data)


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("holder", [b'{"choices":%b}', b'{"choices":[],"more":%b}', b'{"error":%b}', b"%b"])
def test_an_answer_that_is_nested_without_end_is_a_bad_one_and_no_crash(holder: bytes) -> None:
    body = holder % DEEP
    with pytest.raises(BadResponse):
        answer(body, "public")
    with pytest.raises(BadResponse):
        ChatStream("public", False).take(body)
    assert engine_error(500, {}, body).message == "the engine answered with status 500"


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("count", [2**70, 2**63, 10**13])
def test_counts_that_nobody_can_have_counted_are_none(name: str, count: int) -> None:
    body = orjson.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}).decode()
    body = body.replace(f'"{name}":{7 if name[0] == "p" else 2}', f'"{name}":{count}')
    assert answer(body.encode(), "public").usage is None


def test_more_cached_tokens_than_there_were_are_no_more_than_those() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 2**70}}
    found = answer(json.dumps({"choices": [], "usage": usage}).encode(), "public").usage
    assert found == Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=7)


def test_known_fields_of_unknown_shape_are_passed_on() -> None:
    stream = ChatStream("public", False)
    odd = {"model": "m", "choices": [{"index": "zero", "delta": 7}], "usage": "none"}
    assert relayed(stream, orjson.dumps(odd).decode()) == [{**odd, "model": "public"}]


def test_a_stream_is_whole_with_a_done_or_with_every_choice_finished() -> None:
    done = ChatStream("public", False)
    relayed(done, chunk("a"), "[DONE]", chunk("late"))
    assert done.done and done.ending() == DONE and done.pieces == 1
    finished = ChatStream("public", False)
    relayed(finished, chunk("a"), chunk(finish="length"))
    assert finished.ending() == DONE and finished.finish_reason == "length"


def test_a_stream_that_just_ends_is_broken() -> None:
    stream = ChatStream("public", False)
    relayed(stream, chunk("a"))
    with pytest.raises(Broken):
        stream.ending()
    two = '{"model":"m","choices":[{"index":0,"finish_reason":"stop"},{"index":1,"delta":{"content":"x"}}]}'
    relayed(stream, two)
    with pytest.raises(Broken):
        stream.ending()


def test_a_stream_of_nothing_is_no_answer() -> None:
    stream = ChatStream("public", False)
    relayed(stream, "[DONE]")
    with pytest.raises(BadResponse):
        stream.ending()


def test_an_error_event_is_the_engines_error() -> None:
    stream = ChatStream("public", False)
    with pytest.raises(EngineError) as caught:
        stream.take(b'{"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}')
    assert (caught.value.status, caught.value.message, caught.value.type) == (400, "too long", "BadRequestError")


def test_events_with_text_tools_or_reasoning_count_as_pieces() -> None:
    stream = ChatStream("public", False)
    deltas: list[dict[str, object]] = [
        {"role": "assistant", "content": ""},
        {"content": None, "tool_calls": []},
        {},
        {"content": "a"},
        {"tool_calls": [{"index": 0}]},
        {"reasoning_content": "hm"},
    ]
    for delta in deltas:
        stream.take(orjson.dumps({"choices": [{"index": 0, "delta": delta}]}))
    assert stream.pieces == 3


def test_a_unary_answer_has_the_public_name_and_gives_its_usage() -> None:
    found = answer(completion("hello", extra={"model": "engine-7b"}), "public")
    assert orjson.loads(found.body) == {**orjson.loads(completion(extra={"model": "engine-7b"})), "model": "public"}
    assert found.usage == Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
    assert found.finish_reason == "stop"


@pytest.mark.parametrize(
    "given",
    [
        b'{"model":"engine-7b","choices":[]}',
        b'{"model": "engine-7b", "choices": [], "in": {"model":"engine-7b"}}',
        b'{"choices":[],"\\"model":"engine-7b","model":"engine-7b"}',
        b'{"choices":[{"index":"odd"}],"model":"engine-7b"}',
        b'{"choices":[],"model":null}',
        b'{"choices":[],"in":{"model":"engine-7b"}}',
    ],
)
def test_only_the_name_at_the_top_of_a_unary_answer_changes(given: bytes) -> None:
    whole = json.loads(given)
    assert json.loads(answer(given, "public").body) == {**whole, **({"model": "public"} if "model" in whole else {})}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"choices": null}', b'{"choices": []', b"\xff"])
def test_a_unary_answer_that_is_no_completion_is_bad(body: bytes) -> None:
    with pytest.raises(BadResponse):
        answer(body, "public")


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}', "m", "c"),
        (b'{"error":"m"}', "m", None),
        (b'{"object":"error","message":"m","type":"t","code":40303}', "m", None),
        (b'{"detail":"m"}', "m", None),
        (b'{"detail":[{"msg":"m"}]}', '[{"msg":"m"}]', None),
        (b"<html>no</html>", "the engine answered with status 418", None),
        (b"", "the engine answered with status 418", None),
        (b'{"error":null}', "the engine answered with status 418", None),
    ],
)
def test_every_shape_of_an_error_answer_is_understood(body: bytes, message: str, code: str | None) -> None:
    error = engine_error(418, {}, body)
    assert (error.status, error.message, error.code) == (418, message, code)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2000),
        ({"retry-after": "1.5", "retry-after-ms": "300"}, 300),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1000),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 9000),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:09 GMT"}, 1000),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "999999999"}, 3_600_000),
        ({"retry-after-ms": "inf"}, 3_600_000),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_the_wait_an_engine_asks_for_is_read(headers: dict[str, str], wait: int | None) -> None:
    assert retry_after_ms(headers) == wait


def test_half_an_emoji_as_an_escape_is_passed_on_as_it_is() -> None:
    stream = ChatStream("public", False)
    chunk = rb'{"model":"m","choices":[{"index":0,"delta":{"content":"\ud83c"},"finish_reason":null}]}'
    event = stream.take(chunk)
    assert event is not None and rb"\ud83c" in event
    with pytest.raises(BadResponse):
        stream.take(rb'{"model":"m","choices":[{"delta":{"content":"\ud83c"')


# --- completions and embeddings -------------------------------------------------------------------------------------


def text_chunk(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "text_completion", "model": "engine-7b", "choices": [choice]})


def test_a_streamed_completion_is_counted_renamed_and_ended_like_a_chat() -> None:
    stream = ChatStream("public", show_usage=False)
    events = relayed(stream, text_chunk("one "), text_chunk(""), text_chunk("two"), text_chunk("", "length"), "[DONE]")
    assert [event["choices"][0]["text"] for event in events] == ["one ", "", "two", ""]
    assert {event["model"] for event in events} == {"public"}
    assert (stream.pieces, stream.finish_reason, stream.ending()) == (2, "length", DONE)


def test_a_completion_that_ends_before_its_choice_is_broken() -> None:
    stream = ChatStream("public", show_usage=False)
    relayed(stream, text_chunk("one "))
    with pytest.raises(Broken):
        stream.ending()


def test_a_whole_completion_without_counts_is_weighed_by_its_text() -> None:
    choice = {"index": 0, "text": "12345678", "finish_reason": "stop"}
    found = answer(orjson.dumps({"model": "engine-7b", "choices": [choice]}), "public")
    assert (found.usage, found.text_bytes, found.finish_reason) == (None, 8, "stop")


def test_an_embeddings_answer_keeps_its_numbers_and_has_prompt_tokens_only() -> None:
    rows = [{"object": "embedding", "index": 0, "embedding": [0.1, -2.5e-3]}]
    body = orjson.dumps({"object": "list", "data": rows, "model": "engine-7b", "usage": {"prompt_tokens": 4}})
    found = answer(body, "public", "data")
    assert orjson.loads(found.body) == {**orjson.loads(body), "model": "public"}
    assert found.usage == Usage(prompt_tokens=4) and (found.text_bytes, found.finish_reason) == (0, "")


@pytest.mark.parametrize("holds", ["choices", "data"])
def test_an_answer_of_the_other_kind_is_none(holds: str) -> None:
    body = orjson.dumps({"model": "m", "data" if holds == "choices" else "choices": []})
    with pytest.raises(BadResponse):
        answer(body, "public", holds)


_WORDS = st.one_of(
    st.sampled_from(
        ["hi", " there", 'a"b', "back\\slash", "line\nfeed", "é", "\x7f", "", '"model":"engine-7b"', '"content":"x']
    ),
    st.text(max_size=6),
)
_EXTRA = st.sampled_from(
    [{}, {"usage": None}, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, {"message": {"content": "hi"}}]
)
_EVENTS = st.lists(
    st.tuples(_WORDS, st.sampled_from([None, None, None, "stop"]), st.sampled_from([0, 0, 0, 1]), _EXTRA),
    min_size=2,
    max_size=8,
)


@given(events=_EVENTS, show_usage=st.booleans(), spaced=st.booleans())
def test_events_of_a_known_form_mean_what_they_would_mean_alone(
    events: list[tuple[str, str | None, int, dict[str, Any]]], show_usage: bool, spaced: bool
) -> None:
    learning, fresh = ChatStream("public", show_usage), ChatStream("public", show_usage)
    for text, finish, index, extra in events:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish, **extra}
        event = {"id": "c1", "model": "engine-7b", "choices": [choice], **extra}
        data = json.dumps(event).encode() if spaced else orjson.dumps(event)
        fresh._form = None
        assert learning.take(data) == fresh.take(data)
        assert (learning.pieces, learning.usage, learning.finish_reason) == (
            fresh.pieces,
            fresh.usage,
            fresh.finish_reason,
        )
        assert (learning._seen, learning._finished) == (fresh._seen, fresh._finished)


@pytest.mark.parametrize("words", [b"\x01", b"\xff", b'a","x":"b', b"a\\", b"\n"])
def test_words_that_break_the_form_are_judged_like_any_event(words: bytes) -> None:
    """What is no JSON, or says more than words, must not pass because the event before it was understood."""
    head, tail = b'{"model":"e","choices":[{"index":0,"delta":{"content":"', b'"}}]}'
    stream = ChatStream("public", False)
    assert stream.take(head + b"hello" + tail) is not None and stream.take(head + b"you" + tail) is not None
    fresh = ChatStream("public", False)
    try:
        expected = fresh.take(head + words + tail)
    except BadResponse:
        with pytest.raises(BadResponse):
            stream.take(head + words + tail)
    else:
        assert stream.take(head + words + tail) == expected
