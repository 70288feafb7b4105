"""Bodies: what is refused, what is kept, what goes on."""

from __future__ import annotations

import asyncio
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive

from ingress.asked import parse_chat
from ingress.body import ClientGone, read_body
from schemas.errors import Code, Failure, Refusal
from tests.ingress_support import chat_body

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n ",
    "a list": b"[]",
    "a number": b"1",
    "a text": b'"x"',
    "null": b"null",
    "cut off": b'{"model":"m"',
    "two values": b"{}{}",
    "NaN": b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    "Infinity": b'{"model":"m","messages":[{"role":"user"}],"temperature":-Infinity}',
    "a number beyond doubles": b'{"model":"m","messages":[{"role":"user"}],"temperature":1e999}',
    "bad UTF-8": b'{"model":"\xff","messages":[{"role":"user"}]}',
    "half a character": b'{"model":"\xe2\x80","messages":[]}',
    "a lone surrogate": b'{"model":"\\ud800","messages":[{"role":"user"}]}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"model":"m"}'.encode("utf-16"),
    "100,000 open lists": b"[" * 100_000,
    "100,000 nested lists": b"[" * 100_000 + b"]" * 100_000,
    "100,000 nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested deeper than can be written": b'{"model":"m","messages":[{"role":"user"}],"x":'
    + b"[" * 300
    + b"]" * 300
    + b"}",
    "gzip": b"\x1f\x8b\x08\x00\x00",
    "a form": b"model=m&stream=true",
}


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""'])
def test_a_body_of_millions_of_tiny_values_is_refused_unparsed(value: bytes) -> None:
    failure = refused(b'{"x":[' + (value + b",") * 3_000_000 + b"1]}")
    assert (failure.code, "too many values" in failure.message) == (Code.invalid_request, True)


def test_a_long_text_is_taken_whatever_stands_in_it() -> None:
    text = 'if (a[0] == "x") { f(); }\n' * 100_000
    assert len(parse_chat(chat_body(text=text)).body) > 2_000_000


def refused(raw: bytes) -> Failure:
    with pytest.raises(Refusal) as caught:
        parse_chat(raw)
    return caught.value.failure


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_an_invalid_request(raw: bytes) -> None:
    assert refused(raw).code == Code.invalid_request


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"model": None}, Code.missing_required_parameter, "model"),
        ({"model": ""}, Code.invalid_request, "model"),
        ({"model": 7}, Code.invalid_request, "model"),
        ({"model": "m" * 257}, Code.invalid_request, "model"),
        ({"messages": None}, Code.missing_required_parameter, "messages"),
        ({"messages": []}, Code.invalid_request, "messages"),
        ({"messages": {}}, Code.invalid_request, "messages"),
        ({"messages": ["hi"]}, Code.invalid_request, "messages[0]"),
        ({"messages": [{"role": "user"}, {}]}, Code.missing_required_parameter, "messages[1].role"),
        ({"messages": [{"role": 1}]}, Code.invalid_request, "messages[0].role"),
        ({"stream": "yes"}, Code.invalid_request, "stream"),
        ({"stream": 1}, Code.invalid_request, "stream"),
        ({"stream_options": {"include_usage": True}}, Code.invalid_request, "stream_options"),
        ({"stream": True, "stream_options": True}, Code.invalid_request, "stream_options"),
        ({"n": 0}, Code.invalid_request, "n"),
        ({"n": True}, Code.invalid_request, "n"),
        ({"max_tokens": 0}, Code.invalid_request, "max_tokens"),
        ({"max_tokens": 1.5}, Code.invalid_request, "max_tokens"),
        ({"temperature": "hot"}, Code.invalid_request, "temperature"),
        ({"tools": {}}, Code.invalid_request, "tools"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], code: Code, param: str) -> None:
    failure = refused(chat_body(**changes))
    assert (failure.code, failure.param) == (code, param)
    assert failure.public_code == (None if code is Code.missing_required_parameter else "invalid_value")


def test_null_means_left_out() -> None:
    parsed = parse_chat(chat_body(stream=None, n=None, max_tokens=None, stream_options=None))
    assert not parsed.stream
    assert parsed.max_tokens is None


def test_unknown_fields_are_kept() -> None:
    parsed = parse_chat(chat_body(top_k=40, chat_template_kwargs={"enable_thinking": False}))
    assert orjson.loads(parsed.body)["chat_template_kwargs"] == {"enable_thinking": False}
    assert orjson.loads(parsed.body)["top_k"] == 40


def test_duplicate_keys_mean_the_same_to_everyone_behind_the_door() -> None:
    raw = b'{"model":"a","model":"b","messages":[{"role":"user","content":"x","content":"y"}]}'
    parsed = parse_chat(raw)
    assert parsed.model == "b"
    assert parsed.body == b'{"model":"b","messages":[{"role":"user","content":"y"}]}'


def test_escapes_and_line_separators_arrive_as_the_characters_they_mean() -> None:
    raw = b'{"model":"m","messages":[{"role":"user","content":"\\u2028\\u0041\\u0000"}]}'
    assert parse_chat(raw).body == '{"model":"m","messages":[{"role":"user","content":"\u2028A\\u0000"}]}'.encode()


def test_the_newer_bound_of_tokens_wins() -> None:
    assert parse_chat(chat_body(max_tokens=5, max_completion_tokens=9)).max_tokens == 9
    assert parse_chat(chat_body(max_tokens=5)).max_tokens == 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
FIELDS = st.sampled_from(["model", "messages", "stream", "n", "max_tokens", "stream_options", "tools", "x"])


@given(st.binary() | st.dictionaries(FIELDS, JSON).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_request_or_a_refusal(raw: bytes) -> None:
    try:
        parse_chat(raw)
    except Refusal as refusal:
        assert refusal.failure.code in (Code.invalid_request, Code.missing_required_parameter)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_what_goes_on_reads_the_same_when_it_is_read_again(extra: dict[str, object]) -> None:
    known = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    try:
        once = parse_chat(json.dumps({"extra": extra, **known}).encode())
    except Refusal:
        return  # NaN and the like
    assert parse_chat(once.body) == once


def arriving(*messages: Message) -> Receive:
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    return receive


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_put_together() -> None:
    assert await read_body(arriving(part(b"ab", True), part(b"", True), part(b"c")), {}, 3, 1) == b"abc"


@pytest.mark.parametrize("receive", [arriving(part(b"abcd")), arriving(part(b"ab", True), part(b"cd", True))])
async def test_a_counted_body_over_the_limit_is_too_large(receive: Receive) -> None:
    with pytest.raises(Refusal) as caught:
        await read_body(receive, {}, 3, 1)
    assert caught.value.failure.code == Code.request_too_large


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(Refusal) as caught:
        await read_body(arriving(), {b"content-length": b"4"}, 3, 1)
    assert caught.value.failure.code == Code.request_too_large


async def test_a_body_that_does_not_arrive_times_out() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Refusal) as caught:
        await read_body(never, {}, 3, 0.01)
    assert caught.value.failure.code == Code.request_timeout


async def test_a_client_that_leaves_while_uploading_is_gone() -> None:
    with pytest.raises(ClientGone):
        await read_body(arriving(part(b"a", True), {"type": "http.disconnect"}), {}, 3, 1)
