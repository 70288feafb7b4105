"""Responses to an engine that speaks them itself: what passes, and what is ours."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from providers.errors import BadResponse, Broken, EngineError
from providers.fake import JSON, Cut, Head, Piece
from providers.responses_events import event
from providers.responses_responses import PassedStream, answer, request
from schemas.events import RequestCompleted, RequestFailed, Usage
from schemas.routes import RESPONSES
from tests.responses_support import events_of, question, valid
from tests.router_support import cleared_run, completion, endpoint
from tests.unit.test_router_handler import Stage

COUNTS = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 9,
}
MESSAGE = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hi", "annotations": []}],
}
PLACE = {"item_id": "msg_theirs", "output_index": 0, "content_index": 0}


def engines(status: str = "in_progress", **fields: Any) -> dict[str, Any]:
    """A response object as the engine has it."""
    shown = {
        "id": "resp_theirs", "object": "response", "created_at": 5, "model": "engine-7b", "output": [], "tools": [],
        "tool_choice": "auto", "parallel_tool_calls": True, "store": False, "service_tier": "default",
    }  # fmt: skip
    return {**shown, "status": status, **fields}


def said(kind: str, number: int, **fields: Any) -> bytes:
    return event("response." + kind, number, fields)


BEGIN = [
    said("created", 5, response=engines()),
    said("output_item.added", 6, output_index=0, item={**MESSAGE, "status": "in_progress", "content": []}),
    said("content_part.added", 7, **PLACE, part={"type": "output_text", "text": "", "annotations": []}),
    said("output_text.delta", 8, **PLACE, delta="hi", logprobs=[]),
]
END = said("completed", 9, response=engines("completed", output=[MESSAGE], usage=COUNTS))


def data(block: bytes) -> bytes:
    return block.partition(b"\ndata: ")[2].strip()


def relayed(stream: PassedStream, *blocks: bytes) -> bytes:
    return b"".join(stream.take(data(block)) or b"" for block in blocks)


def test_an_engine_is_asked_as_the_client_asked_but_to_keep_nothing() -> None:
    thoughts = {"type": "reasoning", "id": "rs_1", "summary": []}
    kept = {**thoughts, "encrypted_content": "x"}
    asked = question(
        stream=True,
        input=[thoughts, kept],
        tools=[{"type": "web_search"}],
        store=True,
        background=True,
        previous_response_id="resp_1",
        odd=1,
    )
    assert orjson.loads(request(asked, "engine-7b")) == {
        "model": "engine-7b",
        "input": [kept],
        "tools": [{"type": "web_search"}],
        "odd": 1,
        "store": False,
        "stream": True,
    }
    assert "stream" not in orjson.loads(request(question(), ""))


def test_events_pass_under_our_id_our_name_and_our_numbers() -> None:
    asked = question(stream=True, store=True, metadata={"a": "b"})
    stream = PassedStream(asked)
    events = events_of(relayed(stream, *BEGIN, END) + stream.ending())
    last = valid(events[-1]["response"])
    assert (last.id, last.model, last.created_at) == ("resp_" + asked.run.replace("-", ""), "public", 1_700_000_000)
    assert last.to_dict()["store"] is True and last.metadata == {"a": "b"} and last.service_tier == "default"
    assert last.output_text == "hi" and last.output[0].id == "msg_theirs"
    assert stream.usage == Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
    assert (stream.pieces, stream.finish_reason, stream.done, stream.told) == (1, "stop", True, 1)


def test_the_time_of_the_end_is_the_gateways_and_only_of_what_is_complete() -> None:
    for kind, shown in (("completed", 1_700_000_009), ("incomplete", None)):
        stream = PassedStream(question())
        end = said(kind, 1, response=engines(kind, completed_at=5))
        last = events_of(relayed(stream, BEGIN[0], end) + stream.ending(1_700_000_009_900))[-1]
        assert last["response"]["completed_at"] == shown
    whole = answer(question(), json.dumps(engines("completed", output=[MESSAGE])).encode(), 5)
    assert orjson.loads(whole.body)["completed_at"] == 1_700_000_000  # never before it began


def test_an_incomplete_response_passes_with_its_reason() -> None:
    stream = PassedStream(question())
    cut = said("incomplete", 1, response=engines("incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert events_of(relayed(stream, BEGIN[0], cut) + stream.ending())[-1]["type"] == "response.incomplete"
    assert stream.finish_reason == "length" and stream.usage is None


@pytest.mark.parametrize(
    "last",
    [
        said("failed", 1, response=engines("failed", error={"code": "server_error", "message": "boom"})),
        b'event: error\ndata: {"type": "error", "message": "boom"}\n\n',
        b'data: x\ndata: {"error": {"message": "boom"}}\n\n',
    ],
)
def test_a_failure_of_the_engine_is_never_passed_on_as_an_event(last: bytes) -> None:
    stream = PassedStream(question())
    relayed(stream, BEGIN[0])
    with pytest.raises(EngineError) as caught:
        relayed(stream, last)
    assert caught.value.message == "boom"


@pytest.mark.parametrize("block", [b"{", b"[]", b"\xff", b"{}", b'{"type": "response.completed"}', b'{"type": 1}'])
def test_what_is_no_event_of_a_response_is_never_passed_on(block: bytes) -> None:
    with pytest.raises(BadResponse):
        PassedStream(question()).take(block)


def test_a_stream_that_breaks_off_is_broken_and_one_without_an_answer_is_none() -> None:
    stream = PassedStream(question())
    relayed(stream, *BEGIN)
    with pytest.raises(Broken):
        stream.ending()
    with pytest.raises(BadResponse):
        PassedStream(question()).ending()


def test_a_whole_answer_passes_under_our_id() -> None:
    asked = question()
    found = answer(asked, json.dumps(engines("completed", output=[MESSAGE], usage=COUNTS)).encode())
    shown = valid(orjson.loads(found.body))
    assert shown.id.endswith(asked.run.replace("-", "")) and shown.model == "public" and shown.output_text == "hi"
    assert found.usage == Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
    with pytest.raises(EngineError):
        answer(asked, b'{"error": {"message": "no"}}')
    with pytest.raises(BadResponse):
        answer(asked, completion())


async def test_the_router_asks_each_endpoint_in_what_it_speaks() -> None:
    able = endpoint("e1", speaks=("chat", "responses"))
    stage = Stage([Head(), Piece(b"".join([*BEGIN, END]))], endpoints=[able])
    lease = await stage.run(cleared_run(route=RESPONSES, tools=[{"type": "web_search"}]))
    (call,) = stage.transport.calls
    assert call.url == "http://127.0.0.1:9/v1/responses" and orjson.loads(call.body)["store"] is False
    assert valid(events_of(lease.text)[-1]["response"]).output_text == "hi"
    assert isinstance(lease.fact, RequestCompleted) and lease.fact.usage.prompt_tokens == 7
    whole = json.dumps(engines("completed", output=[MESSAGE])).encode()
    unary = await Stage([Head(200, JSON), Piece(whole)], endpoints=[able]).run(
        cleared_run(route=RESPONSES, stream=False)
    )
    assert orjson.loads(unary.text)["model"] == "public"


async def test_what_a_chat_has_no_words_for_is_asked_of_the_endpoint_that_speaks_responses() -> None:
    chat = [endpoint(f"e{number}") for number in range(1, 6)]
    able = endpoint("e6", speaks=("chat", "responses"))
    stage = Stage([Head(), Piece(b"".join([*BEGIN, END]))], endpoints=[*chat, able])
    lease = await stage.run(cleared_run(route=RESPONSES, tools=[{"type": "web_search"}]))
    assert [one.url.rpartition("/v1")[2] for one in stage.transport.calls] == ["/responses"]
    assert isinstance(lease.fact, RequestCompleted) and lease.fact.endpoint == "e6"
    assert [one.outcome for one in lease.fact.attempts][-1] == "ok" and len(lease.fact.attempts) <= 2


async def test_a_passed_response_that_breaks_off_is_failed_with_what_was_said() -> None:
    stage = Stage([Head(), Piece(b"".join(BEGIN)), Cut()], endpoints=[endpoint("e1", speaks=("responses",))])
    lease = await stage.run(cleared_run(route=RESPONSES))
    last = events_of(lease.text)[-1]
    assert last["type"] == "response.failed" and valid(last["response"]).output_text == "hi"
    assert isinstance(lease.fact, RequestFailed) and lease.fact.usage is not None
    assert lease.fact.usage.completion_tokens == 1
