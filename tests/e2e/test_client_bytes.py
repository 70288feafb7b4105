"""Whatever bytes an engine writes its events in, official clients read the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai import OpenAI

from tests.e2e.house import House, read_event
from tests.e2e.scripted import DONE, Reply, ScriptedEngine, chunked, completion, event, unary

LAB = "lab/scripted"
USER: Any = [{"role": "user", "content": "say it"}]
HARD = "a\u2028b\u2029c\u0085d \U0001f30a é \ufeff\x7f"


def ending(newline: bytes = b"\n") -> list[bytes]:
    return [event({}, "stop").replace(b"\n", newline), DONE.replace(b"\n", newline)]


def heard(client: OpenAI, lab: ScriptedEngine, reply: Reply) -> str:
    """The text of a streamed reply as the official client reads it."""
    lab.play(reply)
    chunks = list(client.chat.completions.create(model=LAB, messages=USER, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("newline", [b"\r\n", b"\r", b"\n"], ids=["crlf", "cr", "lf"])
def test_every_line_ending_is_read(client: OpenAI, lab: ScriptedEngine, newline: bytes) -> None:
    pieces = [event(text).replace(b"\n", newline) for text in ("one ", "two")]
    assert heard(client, lab, chunked(*pieces, *ending(newline))) == "one two"


def test_raw_utf8_and_line_separators_inside_text_survive(client: OpenAI, lab: ScriptedEngine) -> None:
    assert heard(client, lab, chunked(event(HARD), *ending())) == HARD


def test_escaped_and_raw_forms_are_the_same_text(client: OpenAI, lab: ScriptedEngine) -> None:
    escaped = event("X").replace(b'"X"', json.dumps(HARD).encode())
    assert heard(client, lab, chunked(escaped, event(HARD), *ending())) == HARD * 2


def test_text_that_looks_like_the_end_is_text(client: OpenAI, lab: ScriptedEngine) -> None:
    text = 'data: [DONE]\n\ndata: {"error": {"message": "no"}}\n\n"model":"engine-name"'
    assert heard(client, lab, chunked(event(text), event("[DONE]"), *ending())) == text + "[DONE]"


def test_one_line_of_a_megabyte_survives(client: OpenAI, lab: ScriptedEngine) -> None:
    text = "0123456789abcdé " * 65_536
    assert heard(client, lab, chunked(event("first "), event(text), *ending())) == "first " + text


def test_character_split_over_pieces_of_the_connection_survives(client: OpenAI, lab: ScriptedEngine) -> None:
    whole = event("sea \U0001f30a and ü")
    pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert heard(client, lab, chunked(*pieces, *ending())) == "sea \U0001f30a and ü"


def test_comments_event_names_and_missing_blanks_are_read_as_sse_says(client: OpenAI, lab: ScriptedEngine) -> None:
    plain = event("no blank").replace(b"data: ", b"data:")
    named = b"event: message\nid: 7\nretry: 10\n" + event(", named")
    assert heard(client, lab, chunked(b": hello\n\n", plain, b":\n", named, b"\n\n", *ending())) == "no blank, named"


def test_many_events_in_one_piece_are_all_passed_on(client: OpenAI, lab: ScriptedEngine) -> None:
    texts = [f"{number} " for number in range(400)]
    burst = b"".join(event(text) for text in texts)
    assert heard(client, lab, chunked(burst, *ending())) == "".join(texts)


def test_last_event_without_its_blank_line_still_counts(client: OpenAI, lab: ScriptedEngine) -> None:
    assert heard(client, lab, chunked(event("all"), event({}, "stop"), b"data: [DONE]")) == "all"


def test_whole_answer_in_any_letters_comes_back(client: OpenAI, lab: ScriptedEngine) -> None:
    lab.play(unary(completion(HARD * 1000)))
    answer = client.chat.completions.create(model=LAB, messages=USER)
    assert answer.choices[0].message.content == HARD * 1000


def test_prompt_in_any_letters_reaches_the_engine(client: OpenAI, lab: ScriptedEngine) -> None:
    client.chat.completions.create(model=LAB, messages=[{"role": "user", "content": HARD}])
    assert lab.last.json["messages"][0]["content"] == HARD


def test_what_is_sent_holds_nothing_that_breaks_official_clients(house: House, lab: ScriptedEngine) -> None:
    """No id, no retry, no event names, one line of data for each event, [DONE] last and the body ends with it."""
    lab.play(chunked(b"event: message\nid: 7\nretry: 10\n" + event("one").replace(b"\n", b"\r\n"), *ending()))
    connection = house.post({"model": LAB, "messages": USER, "stream": True})
    response = connection.getresponse()
    events = list(iter(lambda: read_event(response), b""))
    connection.close()
    assert all(one.startswith(b"data: ") and lines_of(one) == 1 for one in events)
    assert events[-1] == DONE and events.count(DONE) == 1


def lines_of(one: bytes) -> int:
    said: Sequence[bytes] = one.rstrip(b"\r\n").splitlines()
    return len(said)
