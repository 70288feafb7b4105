"""Runs of /v1/responses on their way through the router, over engines that speak chat."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from msgspec import structs

from providers.fake import JSON, Cut, Delay, Hang, Head, Piece, Script
from schemas.errors import Code, Failure, status_of
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.frames import DATA, END, ERROR
from schemas.routes import RESPONSES
from tests.responses_support import delta, events_of, heard, valid
from tests.router_support import (
    GOOD_STREAM,
    MemoryLease,
    chunk,
    cleared_run,
    completion,
    endpoint,
    sse,
    until,
    usage_chunk,
)
from tests.unit.test_responses_passed import BEGIN
from tests.unit.test_router_handler import Stage
from workers.router.settings import RouterSettings

GOOD: Script = [Head(), Piece(GOOD_STREAM)]
FIRST = sse(chunk("he"))


def asked(**fields: Any) -> MemoryLease:
    return cleared_run(route=RESPONSES, **fields)


async def test_a_streamed_response_is_one_run_whose_events_are_the_clients() -> None:
    stage = Stage(GOOD)
    lease = await stage.run(asked(instructions="be kind"))
    (call,) = stage.transport.calls
    assert call.url == "http://127.0.0.1:9/v1/chat/completions"
    assert [one["role"] for one in orjson.loads(call.body)["messages"]] == ["system", "user"]
    events = events_of(lease.text)
    response = valid(events[-1]["response"])
    assert response.output_text == "hello" and response.id == "resp_" + lease.run.replace("-", "")
    assert heard(events)["output"][0]["content"][0]["text"] == "hello"
    assert lease.sequence == len(events) and b"[DONE]" not in lease.text
    fact = lease.fact
    assert isinstance(fact, RequestCompleted) and fact.events == len(events)
    assert fact.usage == Usage(prompt_tokens=7, completion_tokens=2) and fact.finish_reason == "stop"


async def test_frames_of_a_response_count_the_clients_events_and_not_the_engines() -> None:
    lease = await Stage([Head(), Piece(FIRST), Hang()], [Head(), Cut()]).run(asked())
    first = lease.sent[0]
    assert (first.kind, first.events) == (DATA, 5)
    assert [event["sequence_number"] for event in events_of(lease.text)] == list(range(lease.sequence))


async def test_a_whole_response_is_one_event() -> None:
    lease = await Stage([Head(200, JSON), Piece(completion())]).run(asked(stream=False))
    (frame,) = lease.sent
    assert (frame.kind, frame.events) == (END, 1) and frame.headers["content-type"] == "application/json"
    response = valid(orjson.loads(frame.payload))
    assert response.output_text == "hello" and response.usage is not None and response.usage.total_tokens == 9
    assert isinstance(lease.fact, RequestCompleted) and lease.fact.usage.cached_tokens == 3


async def test_what_the_guards_replaced_is_neither_asked_nor_shown() -> None:
    stage = Stage(GOOD)
    edits = [("/instructions", 0, 3, "[NAME]"), ("/input/0/content", 0, 2, "[MAIL]")]
    lease = await stage.run(asked(instructions="Ann asks", edits=edits))
    assert [one["content"] for one in orjson.loads(stage.transport.calls[0].body)["messages"]] == [
        "[NAME] asks",
        "[MAIL]",
    ]
    assert events_of(lease.text)[-1]["response"]["instructions"] == "[NAME] asks" and b"Ann" not in lease.text


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ([Cut()], Code.upstream_interrupted),
        ([Hang()], Code.upstream_timeout),
        ([Piece(sse('{"error": {"message": "out of memory", "code": 500}}'))], Code.upstream_interrupted),
    ],
)
async def test_a_response_that_breaks_off_ends_as_failed_with_all_that_was_said(last: Script, code: Code) -> None:
    lease = await Stage([Head(), Piece(FIRST), Piece(sse(chunk("y"))), *last]).run(asked())
    events = events_of(lease.text)
    final = events[-1]
    response = valid(final["response"])
    assert lease.sent[-1].kind == END and final["type"] == "response.failed" and response.status == "failed"
    assert response.output_text == "hey" and final["response"]["output"][0]["status"] == "incomplete"
    assert response.error is not None and (response.error.code, response.error.type) == ("server_error", code)
    fact = lease.fact
    assert isinstance(fact, RequestFailed) and fact.failure.code == code
    assert fact.usage == Usage(prompt_tokens=11, completion_tokens=2, estimated=True)
    assert fact.events == len(events) == lease.sequence


ABLE = [endpoint("e1", continues="prefill"), endpoint("e2", continues="continue_final_message")]
REST: Script = [Head(), Piece(sse(chunk("l"), chunk("lo"), chunk(finish="stop"), usage_chunk(9, 2), "[DONE]"))]


async def test_a_response_that_breaks_off_goes_on_elsewhere_as_one_answer() -> None:
    stage = Stage([Head(), Piece(FIRST), Cut()], REST, endpoints=ABLE)
    lease = await stage.run(asked(max_output_tokens=9))
    events = events_of(lease.text)
    response = valid(events[-1]["response"])
    assert (response.status, response.output_text, len(response.output)) == ("completed", "hello", 1)
    assert heard(events)["output"][0]["content"][0]["text"] == "hello" and lease.sequence == len(events)
    assert len({event["item_id"] for event in events if "item_id" in event}) == 1
    assert [event["type"] for event in events].count("response.output_item.added") == 1
    rest = orjson.loads(stage.transport.calls[1].body)
    assert rest["messages"][-1] == {"role": "assistant", "content": "he"} and rest["max_tokens"] == 8
    assert rest["continue_final_message"] is True and stage.transport.calls[1].url.endswith("/chat/completions")
    usage = Usage(prompt_tokens=8, completion_tokens=3, estimated=True)
    assert isinstance(lease.fact, RequestCompleted) and lease.fact.usage == usage
    assert response.usage is not None and response.usage.output_tokens == 3
    assert lease.fact.events == len(events)


async def test_a_response_that_had_said_nothing_yet_begins_its_text_elsewhere() -> None:
    begun = sse(delta(role="assistant", content=""))
    stage = Stage([Head(), Piece(begun), Cut()], GOOD, endpoints=ABLE)
    lease = await stage.run(asked())
    assert valid(events_of(lease.text)[-1]["response"]).output_text == "hello"
    assert [one["role"] for one in orjson.loads(stage.transport.calls[1].body)["messages"]] == ["user"]


async def test_a_response_that_used_up_its_bound_before_it_broke_off_is_incomplete() -> None:
    stage = Stage([Head(), Piece(FIRST), Cut()], endpoints=ABLE)
    lease = await stage.run(asked(max_output_tokens=1))
    last = events_of(lease.text)[-1]
    response = valid(last["response"])
    assert (last["type"], response.status, response.output_text) == ("response.incomplete", "incomplete", "he")
    assert response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None and (response.usage.output_tokens, len(stage.transport.calls)) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, FIRST),
        ({"text": {"format": {"type": "json_object"}}}, FIRST),
        ({}, sse(delta(reasoning="hm"), chunk("he"))),
        ({}, sse(chunk("he"), delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f"}}]))),
        ({}, sse(chunk("he"), delta(refusal="no"))),
    ],
)
async def test_a_response_that_is_more_than_one_text_is_not_continued(fields: dict[str, Any], first: bytes) -> None:
    stage = Stage([Head(), Piece(first), Cut()], GOOD, endpoints=ABLE)
    lease = await stage.run(asked(**fields))
    assert len(stage.transport.calls) == 1 and isinstance(lease.fact, RequestFailed)
    assert events_of(lease.text)[-1]["type"] == "response.failed"


async def test_the_rest_is_asked_of_an_engine_that_speaks_chat() -> None:
    deaf = endpoint("e1", continues="prefill", speaks=("responses",))
    alone = Stage([Head(), Piece(b"".join(BEGIN)), Cut()], GOOD, endpoints=[deaf])
    assert isinstance((await alone.run(asked())).fact, RequestFailed) and len(alone.transport.calls) == 1
    both = endpoint("e1", continues="prefill", speaks=("chat", "responses"))
    able = endpoint("e2", continues="prefill", speaks=("chat", "responses"))
    stage = Stage([Head(), Piece(b"".join(BEGIN)), Cut()], REST, endpoints=[both, able])
    lease = await stage.run(asked())
    assert [one.url.rpartition("/v1")[2] for one in stage.transport.calls] == ["/responses", "/chat/completions"]
    response = valid(events_of(lease.text)[-1]["response"])
    assert response.output_text == "hillo" and response.output[0].id == "msg_theirs"


async def test_a_response_whose_owner_died_goes_on_where_answers_are_continued() -> None:
    dead = await Stage([Head(), Piece(FIRST), Piece(sse(chunk("y"))), Hang()]).run(asked())
    sent = [one for one in dead.sent if one.kind == DATA]
    heir = replace(dead, sent=sent, sequence=sum(one.events for one in sent), fact=None, epoch=2)
    await Stage(REST, endpoints=ABLE).run(heir)
    response = valid(events_of(heir.text)[-1]["response"])
    assert (response.status, response.output_text) == ("completed", "heyllo")


async def test_a_fault_before_the_first_event_is_retried_and_then_has_a_status() -> None:
    stage = Stage([Head(), Cut()], GOOD, endpoints=[endpoint("e1"), endpoint("e2")])
    lease = await stage.run(asked())
    assert isinstance(lease.fact, RequestCompleted) and events_of(lease.text)[0]["type"] == "response.created"
    alone = await Stage([Head(), Cut()]).run(asked())
    assert [one.kind for one in alone.sent] == [ERROR] and alone.failure.code == Code.upstream_error


async def test_a_tool_that_cannot_be_run_is_the_requests_fault_and_no_engine_is_called() -> None:
    stage = Stage(GOOD, endpoints=[endpoint("e1"), endpoint("e2")])
    lease = await stage.run(asked(tools=[{"type": "web_search"}]))
    assert stage.transport.calls == [] and lease.failure.param == "tools[0].type"
    assert status_of(lease.failure) == 400 and "web_search" in lease.failure.message
    fact = lease.fact
    assert isinstance(fact, RequestFailed)
    assert fact.failure == Failure(code=Code.invalid_request, message="")
    assert [(one.endpoint, one.outcome) for one in fact.attempts] == [("e1", Code.invalid_request)]


async def test_a_response_whose_owner_died_ends_as_failed_with_what_the_owner_had_sent() -> None:
    dead = await Stage([Head(), Piece(FIRST), Piece(sse(chunk("y"))), Hang()]).run(asked())
    sent = [one for one in dead.sent if one.kind == DATA]
    heir = replace(dead, sent=sent, sequence=sum(one.events for one in sent), fact=None, epoch=2)
    stage = Stage(GOOD)
    await stage.run(heir)
    events = events_of(heir.text)
    assert stage.transport.calls == [] and events[-1]["type"] == "response.failed"
    assert valid(events[-1]["response"]).output_text == "hey"
    assert isinstance(heir.fact, RequestFailed) and heir.fact.usage is not None
    assert heir.fact.usage.completion_tokens == 2 and heir.fact.usage.estimated


async def test_a_response_whose_beginning_is_lost_ends_with_an_error_as_other_answers_do() -> None:
    lease = asked()
    lease.sequence = 4
    await Stage(GOOD).run(lease)
    assert lease.sent[-1].kind == ERROR and lease.failure.code == Code.upstream_interrupted


@pytest.mark.parametrize("background", [True, False])
async def test_only_its_own_deadline_bounds_a_call_in_the_background(background: bool) -> None:
    brief = RouterSettings(total_timeout_s=0.05)
    lease = asked()
    lease.accepted = structs.replace(lease.accepted, background=background)
    # the engine's time is over before its last words, and there is no other limit near
    await Stage([Head(), Piece(FIRST), Delay(0.1), Piece(GOOD_STREAM)], settings=brief).run(lease)
    assert isinstance(lease.fact, RequestCompleted if background else RequestFailed)


async def test_a_cancelled_response_closes_the_engine_and_bills_what_was_said() -> None:
    stage = Stage([Head(), Piece(FIRST), Hang()])
    lease = asked()

    async def cancel() -> None:
        await until(lambda: lease.sequence > 0)
        lease.cancelled.set()

    await asyncio.gather(stage.run(lease), cancel())
    fact = lease.fact
    assert isinstance(fact, RequestCancelled) and fact.usage is not None and fact.usage.completion_tokens == 1
