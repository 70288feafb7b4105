"""Engines that fail: after the first byte always an error and never a clean end, before it another engine is asked."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.house import House, read_event
from tests.e2e.scripted import (
    CUT,
    DONE,
    HANG,
    STREAM_HEAD,
    Reply,
    ScriptedEngine,
    chunk,
    chunked,
    completion,
    event,
    failure,
    unary,
    whole_stream,
)

LAB = "lab/scripted"
USER: Any = [{"role": "user", "content": "say it"}]
PIECES = (event({"role": "assistant", "content": "one "}), event("two"))
ERROR_EVENT = b'data: {"error": {"message": "out of memory", "type": "server", "code": 500}}\n\n'
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
HALF_CHUNK = chunk(event("three"))[:-20]
Two = tuple[ScriptedEngine, ScriptedEngine]

BROKEN: dict[str, tuple[Reply, str]] = {
    "cut": (chunked(*PIECES, CUT), "upstream_interrupted"),
    "cut with the last piece": ([STREAM_HEAD + chunk(b"".join(PIECES)), CUT], "upstream_interrupted"),
    "cut inside an event": ([*chunked(*PIECES)[:-1], HALF_CHUNK, 0.05, CUT], "upstream_interrupted"),
    "cut without chunks": ([PLAIN_HEAD, *PIECES, 0.05, CUT], "upstream_interrupted"),
    "clean end without done": (chunked(*PIECES), "upstream_interrupted"),
    "malformed json": (chunked(*PIECES, b"data: {oops\n\n", event({}, "stop"), DONE), "upstream_interrupted"),
    "not utf-8": (chunked(*PIECES, event("?").replace(b"?", b"\xff"), DONE), "upstream_interrupted"),
    "error event": (chunked(*PIECES, ERROR_EVENT), "upstream_interrupted"),
    "silence": (chunked(*PIECES, HANG), "upstream_timeout"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_answer_that_breaks_after_its_first_byte_ends_in_an_error(
    client: OpenAI, house: House, lab: ScriptedEngine, name: str
) -> None:
    reply, code = BROKEN[name]
    lab.play(reply)
    stream = client.chat.completions.create(model=LAB, messages=USER, stream=True)
    said: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        said.extend(one.choices[0].delta.content or "" for one in stream)
    assert "".join(said) == "one two"
    assert caught.value.code == code
    assert isinstance(caught.value.body, dict) and set(caught.value.body) == {
        "message",
        "type",
        "param",
        "code",
        "doc_url",
    }
    row = house.record(stream.response.headers["x-request-id"])
    assert (row["outcome"], row["code"], row["estimated"]) == ("failed", code, True)
    assert len(lab.requests) == 1


def test_broken_stream_ends_with_one_error_event_and_without_done(house: House, lab: ScriptedEngine) -> None:
    lab.play(chunked(*PIECES, CUT))
    connection = house.post({"model": LAB, "messages": USER, "stream": True})
    response = connection.getresponse()
    events = list(iter(lambda: read_event(response), b""))
    connection.close()
    assert [one.startswith(b'data: {"error":') for one in events] == [False, False, True]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        failure(429),
        failure(500),
        failure(503, **{"retry-after": "1"}),
        failure(404),
        unary(b"<html>busy</html>"),
        chunked(b": still loading\n\n", CUT),
        chunked(ERROR_EVENT),
        chunked(DONE),
    ],
    ids=["429", "500", "503", "404", "html", "comment-then-cut", "error-event", "only-done"],
)
def test_engine_that_fails_before_its_first_byte_is_replaced_by_another(
    client: OpenAI, house: House, pair: Two, reply: Reply, stream: bool
) -> None:
    good = whole_stream("well") if stream else unary(completion("well"))
    pair[0].play(reply, good)
    raw = client.chat.completions.with_raw_response.create(model="pair", messages=USER, stream=stream)
    answer: Any = raw.parse()
    text = "".join(one.choices[0].delta.content or "" for one in answer) if stream else text_of(answer)
    assert text == "well"
    assert [len(engine.requests) for engine in pair] == [1, 1]
    row = house.record(raw.headers["x-request-id"])
    assert [one["outcome"] == "ok" for one in row["attempts"]] == [False, True]
    assert len({one["endpoint"] for one in row["attempts"]}) == 2
    assert (row["outcome"], row["completion_tokens"]) == ("completed", 3)


@pytest.mark.parametrize("stream", [False, True])
def test_connection_that_ends_before_any_byte_is_survived(client: OpenAI, pair: Two, stream: bool) -> None:
    """By the same engine over a new connection when the old one was kept from before, else by the other engine."""
    pair[0].play([CUT], whole_stream("well") if stream else unary(completion("well")))
    answer: Any = client.chat.completions.create(model="pair", messages=USER, stream=stream)
    text = "".join(one.choices[0].delta.content or "" for one in answer) if stream else text_of(answer)
    assert text == "well" and sum(len(engine.requests) for engine in pair) == 2


def test_engine_that_dies_while_it_works_is_not_asked_again(client: OpenAI, house: House, pair: Two) -> None:
    """Only a connection that is dead at once was stale; a death later is an attempt, and another engine takes over."""
    pair[0].play(whole_stream("warm"), whole_stream("warm"))
    for _ in pair:
        list(client.chat.completions.create(model="pair", messages=USER, stream=True))
    pair[0].play([1.5, CUT], unary(completion("well")))
    raw = client.chat.completions.with_raw_response.create(model="pair", messages=USER)
    assert text_of(raw.parse()) == "well"
    assert sum(len(engine.requests) for engine in pair) == 4  # one may still rest as an earlier test had it ask
    assert [one["outcome"] for one in house.record(raw.headers["x-request-id"])["attempts"]] == ["upstream_error", "ok"]


def test_request_that_is_wrong_is_not_tried_elsewhere(client: OpenAI, pair: Two) -> None:
    pair[0].play(failure(400), unary(completion("never")))
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="pair", messages=USER)
    assert caught.value.code == "engine_code"
    assert sum(len(engine.requests) for engine in pair) == 1


def test_answer_that_has_begun_is_not_tried_elsewhere(client: OpenAI, pair: Two) -> None:
    pair[0].play(chunked(*PIECES, CUT), whole_stream("never"))
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="pair", messages=USER, stream=True))
    assert sum(len(engine.requests) for engine in pair) == 1


def test_when_every_engine_fails_the_client_hears_of_it_once(client: OpenAI, pair: Two) -> None:
    pair[0].play(failure(500), failure(500))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="pair", messages=USER)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
    assert [len(engine.requests) for engine in pair] == [1, 1]


def test_answer_that_finished_without_done_is_whole(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(chunked(event("all"), event({}, "stop")))
    chunks = list(client.chat.completions.create(model=LAB, messages=USER, stream=True))
    assert [one.choices[0].finish_reason for one in chunks] == [None, "stop"]


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)
