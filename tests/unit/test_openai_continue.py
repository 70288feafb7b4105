"""The dialect of going on: what was said, the request for the rest, the seam."""

import orjson
import pytest

from providers.errors import BadResponse
from providers.openai_continue import Continued, Told, closing, left_of, read, request
from providers.openai_openai import ChatStream
from schemas.events import Usage
from tests.router_support import chunk, sse, usage_chunk

ROLE = orjson.dumps(
    {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "public",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
    }
).decode()
TOLD = Told(head={"id": "c1", "created": 1, "model": "public"}, text="he", pieces=1)


def test_what_was_said_is_read_from_the_events_alone() -> None:
    told = read(sse(ROLE, chunk("he", model="public"), chunk("llo")))
    assert (told.text, told.pieces, told.finish_reason, told.odd) == ("hello", 2, "", "")
    assert told.head == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "public",
        "system_fingerprint": "fp",
    }


def test_only_what_was_generated_counts_and_the_count_that_was_shown_is_kept() -> None:
    thought = chunk("?").replace('"content":"?"', '"reasoning_content":"hm"')
    told = read(sse(ROLE, thought, chunk("he"), chunk(finish="stop"), usage_chunk(prompt=7, completion=9)))
    assert (told.pieces, told.finish_reason, told.counted) == (2, "stop", True)
    assert told.usage == Usage(prompt_tokens=7, completion_tokens=9)


def test_a_completion_is_read_by_its_text() -> None:
    event = orjson.dumps({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "ab"}]}).decode()
    assert (read(sse(event, event)).text, read(sse(event, event)).odd) == ("abab", "")


def test_half_an_emoji_and_its_other_half_are_one() -> None:
    halves = [chunk("?").replace("?", half) for half in (r"\ud83d", r"\ude00")]
    asked = orjson.loads(request(b'{"messages":[]}', read(sse(*halves)), "prefill"))
    assert asked["messages"] == [{"role": "assistant", "content": "\U0001f600"}]


@pytest.mark.parametrize(
    ("event", "odd"),
    [
        ({"delta": {"tool_calls": [{"index": 0}]}}, "tool_calls"),
        ({"delta": {"reasoning_content": "hm"}}, "reasoning_content"),
        ({"delta": {"content": "x"}, "logprobs": {"content": []}}, "logprobs"),
        ({"delta": {"content": "x"}, "index": 1}, "more than one choice"),
        ({"delta": {"content": [{"text": "x"}]}}, "content that is no text"),
        ({"delta": 3}, "cannot be read"),
    ],
)
def test_what_is_no_plain_text_is_said_to_be_odd(event: dict[str, object], odd: str) -> None:
    told = read(sse(orjson.dumps({"choices": [event]}).decode(), chunk("more")))
    assert odd in told.odd


@pytest.mark.parametrize(
    ("how", "flags"),
    [("prefill", {}), ("continue_final_message", {"continue_final_message": True, "add_generation_prompt": False})],
)
def test_the_rest_of_a_chat_is_asked_for_in_the_engines_words(how: str, flags: dict[str, bool]) -> None:
    body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "min_tokens": 4, "seed": 1})
    asked = orjson.loads(request(body, TOLD, how))
    assert asked == {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "he"}],
        "max_tokens": 8,
        "min_tokens": 3,
        "seed": 1,
        **flags,
    }


def test_the_rest_of_a_completion_is_asked_for_by_a_longer_prompt() -> None:
    asked = orjson.loads(request(b'{"prompt":"say ","max_tokens":3}', TOLD, "continue_final_message"))
    assert asked == {"prompt": "say he", "max_tokens": 2}


def test_when_nothing_was_said_the_request_is_the_same() -> None:
    assert request(b'{"messages": []}', read(sse(ROLE)), "prefill") == b'{"messages": []}'


def test_the_smaller_bound_tells_what_is_left() -> None:
    told = Told(pieces=5)
    assert left_of({"max_tokens": 9, "max_completion_tokens": 7}, told) == 2
    assert left_of({"max_tokens": 5}, told) == 0 and left_of({"max_tokens": None}, told) is None


def _continued(show_usage: bool, *events: str) -> tuple[Continued, list[dict[str, object]]]:
    stream = Continued("public", show_usage, read(sse(ROLE, chunk("he", model="public"))))
    out = [event for data in events if (event := stream.take(data.encode())) is not None]
    return stream, [orjson.loads(event.removeprefix(b"data: ")) for event in out]


def test_the_seam_shows_neither_another_id_nor_another_speaker() -> None:
    other = {"id": "c2", "created": 9, "model": "engine-8b", "system_fingerprint": "other", "x": 1}
    speaker = orjson.dumps({**other, "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
    both = orjson.dumps({**other, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "l"}}]})
    _, events = _continued(False, speaker.decode(), both.decode(), chunk("lo", model="engine-8b"))
    assert [event["choices"][0]["delta"] for event in events] == [{"content": "l"}, {"content": "lo"}]  # type: ignore[index]
    heads = [(event["id"], event["created"], event["model"], event["system_fingerprint"]) for event in events]
    assert heads == [("c1", 1, "public", "fp")] * 2 and events[0]["x"] == 1


def test_usage_is_of_the_whole_answer_and_never_above_what_the_last_engine_counted() -> None:
    stream, events = _continued(
        True, chunk("llo"), chunk(finish="stop"), usage_chunk(prompt=12, completion=3), "[DONE]"
    )
    assert stream.usage == Usage(prompt_tokens=11, completion_tokens=4, estimated=True)
    assert events[-1]["usage"] == {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
    assert stream.ending() == b"data: [DONE]\n\n" and stream.finish_reason == "stop"


def test_usage_that_was_not_asked_for_is_kept_from_the_client_only() -> None:
    stream, events = _continued(False, chunk("llo", finish="stop"), usage_chunk(prompt=12, completion=3))
    assert stream.usage is not None and len(events) == 1


def test_pieces_count_what_was_said_before() -> None:
    stream, _ = _continued(False, chunk("llo"))
    assert stream.pieces == 2


@pytest.mark.parametrize("data", [b"{", b'{"choices":[],"usage":{"prompt_tokens":"x"}}'])
def test_rubbish_in_the_rest_is_never_passed_on(data: bytes) -> None:
    with pytest.raises(BadResponse):
        Continued("public", True, TOLD).take(data)


def test_what_lacks_its_end_alone_gets_it() -> None:
    payload, events = closing(Told(head={"id": "c1"}, text="x", pieces=1), Usage(prompt_tokens=2, completion_tokens=1))
    plain = ChatStream("public", True)
    shown = [plain.take(block.removeprefix(b"data: ")) for block in payload.split(b"\n\n") if block]
    assert events == len(shown) == 3 and plain.done and plain.finish_reason == "length"
    assert plain.usage == Usage(prompt_tokens=2, completion_tokens=1)
    finished = Told(head={"id": "c1"}, finish_reason="stop", counted=True)
    assert closing(finished, Usage()) == (b"data: [DONE]\n\n", 1)
