"""A broken answer is continued where that is the rest of the same answer, else it ends as broken."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from providers.fake import JSON, Cut, Head, Piece, Script
from providers.openai_continue import Told, read
from schemas.errors import Code
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.frames import DATA, END
from tests.router_support import MemoryLease, Sent, chunk, cleared_run, endpoint, sse, usage_chunk
from tests.unit.test_router_handler import QUICK, Stage
from workers.router.continuation import refusal

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ONE, TWO = endpoint("e1", continues="prefill"), endpoint("e2", continues="continue_final_message")
BROKEN: Script = [Head(), Piece(sse(chunk("he"))), Piece(sse(chunk("l"))), Cut()]
REST: Script = [Head(), Piece(sse(chunk("lo"), chunk(finish="stop"), usage_chunk(10, 1), "[DONE]"))]
SAID = Told(text="he", pieces=1)


def asked(**more: Any) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": "hi"}], **more})


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "a+"},
        {"grammar": "root ::= x"},
        {"logprobs": True},
        {"tools": [{"type": "function"}]},
        {"stop": ["elephant"]},
        {"stop": "he"},
        {"messages": [{"role": "assistant", "content": "I"}]},
        {"messages": []},
        {"stream_options": {"continuous_usage_stats": True}},
    ],
)
def test_what_would_be_another_answer_is_refused(more: dict[str, Any]) -> None:
    assert refusal(CHAT, asked(**more), SAID)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 1, "logprobs": False, "tools": [], "seed": 3, "max_tokens": 9, "stream_options": {"include_usage": True}},
        {"response_format": {"type": "text"}, "stop": ["\n", "END"], "temperature": 0, "unknown": {"a": 1}},
    ],
)
def test_a_plain_answer_may_go_on(more: dict[str, Any]) -> None:
    assert not refusal(CHAT, asked(**more), SAID)


def test_a_completion_goes_on_when_its_prompt_is_a_text_and_its_length_is_said() -> None:
    def ruled(**body: Any) -> str:
        return refusal(COMPLETIONS, orjson.dumps(body), SAID)

    assert not ruled(prompt="a", max_tokens=9)
    assert all((ruled(prompt="a"), ruled(prompt=["a", "b"], max_tokens=9), ruled(prompt=[1, 2], max_tokens=9)))
    assert ruled(prompt="a", max_tokens=9, echo=True) and ruled(prompt="a", max_tokens=9, suffix="z")


def test_what_is_odd_in_the_answer_is_the_reason() -> None:
    assert refusal(CHAT, asked(), Told(odd="it carried tool_calls")) == "it carried tool_calls"
    assert refusal("/v1/embeddings", asked(), SAID)


@pytest.mark.parametrize(
    "told",
    [
        Told(text="so </think> he", pieces=1),
        Told(text="<think>hm", pieces=1),
        Told(text="he \ud83d", pieces=1),
        Told(text="he", pieces=1, counted=True),
    ],
)
def test_a_text_that_an_engine_would_not_see_as_it_was_sent_is_refused(told: Told) -> None:
    assert refusal(CHAT, asked(), told)
    assert not refusal(CHAT, asked(), Told(text="he \U0001f600", pieces=1))


def text_of(lease: MemoryLease) -> str:
    return read(lease.text.removesuffix(b"data: [DONE]\n\n")).text


async def test_another_endpoint_goes_on_where_the_first_broke_off() -> None:
    stage = Stage(BROKEN, REST, endpoints=[ONE, TWO])
    lease = await stage.run(cleared_run(max_tokens=9))
    assert text_of(lease) == "hello" and lease.sent[-1].kind == END and lease.text.endswith(b"data: [DONE]\n\n")
    first, second = (orjson.loads(call.body) for call in stage.transport.calls)
    assert first["max_tokens"] == 9 and second["max_tokens"] == 7
    assert second["messages"][-1] == {"role": "assistant", "content": "hel"}
    fact = lease.fact
    assert isinstance(fact, RequestCompleted) and fact.finish_reason == "stop"
    assert fact.usage == Usage(prompt_tokens=8, completion_tokens=3, estimated=True)
    assert [(one.outcome, one.after) for one in fact.attempts] == [("upstream_interrupted", 0), ("ok", 2)]
    assert fact.events == lease.sequence


@pytest.mark.parametrize(
    ("endpoints", "settings"),
    [
        ([endpoint("e1"), endpoint("e2")], QUICK),
        ([ONE], QUICK),
        ([ONE, TWO], QUICK.model_copy(update={"continuations": 0})),
        ([ONE, TWO], QUICK.model_copy(update={"attempts": 1})),
    ],
)
async def test_without_leave_or_another_endpoint_it_ends_as_broken(endpoints: Sequence[Any], settings: Any) -> None:
    lease = await Stage(BROKEN, REST, endpoints=endpoints, settings=settings).run(cleared_run())
    assert lease.failure.code == Code.upstream_interrupted and lease.failure.should_retry is False
    assert isinstance(lease.fact, RequestFailed)
    assert lease.fact.usage == Usage(prompt_tokens=11, completion_tokens=2, estimated=True)


async def test_what_cannot_continue_is_never_chosen_for_it() -> None:
    stage = Stage(BROKEN, REST, endpoints=[ONE, endpoint("e0"), TWO])
    for _ in range(3):
        stage.transport._scripts[:] = [BROKEN, REST]
        lease = await stage.run(cleared_run())
        assert isinstance(lease.fact, RequestCompleted) and lease.fact.endpoint in ("e1", "e2")


async def test_a_rest_that_breaks_off_too_is_continued_as_often_as_settings_say() -> None:
    three = [endpoint(f"e{n}", continues="prefill") for n in range(4)]
    once: Script = [Head(), Piece(sse(chunk("x"))), Piece(sse(chunk("y"))), Cut()]
    settings = QUICK.model_copy(update={"continuations": 2, "attempts": 10})
    lease = await Stage(once, endpoints=three, settings=settings).run(cleared_run())
    assert isinstance(lease.fact, RequestFailed) and len(lease.fact.attempts) == 3
    assert lease.fact.usage == Usage(prompt_tokens=11, completion_tokens=6, estimated=True)
    assert [one.after for one in lease.fact.attempts] == [0, 2, 4]


@pytest.mark.parametrize("refused", [[Head(400, JSON), Piece(b"{}")], [Head(200, JSON), Piece(b"{}")]])
async def test_an_engine_that_will_not_continue_leaves_the_first_error(refused: Script) -> None:
    lease = await Stage(BROKEN, refused, endpoints=[ONE, TWO]).run(cleared_run())
    assert lease.failure.code == Code.upstream_interrupted and "broke off" in lease.failure.message
    assert isinstance(lease.fact, RequestFailed) and lease.fact.usage is not None
    assert lease.fact.usage.completion_tokens == 2


def speaker() -> str:
    """The event that engines begin with."""
    return chunk("?").replace('"content":"?"', '"role":"assistant","content":""')


def taken_over(*events: str, **fields: Any) -> MemoryLease:
    """A run of whose answer an earlier owner has sent these events."""
    lease = cleared_run(**fields)
    lease.sent.append(Sent(DATA, sse(*events), len(events), {}))
    lease.sequence, lease.epoch = len(events), 2
    return lease


async def test_a_new_owner_goes_on_where_the_old_one_died() -> None:
    stage = Stage(REST, endpoints=[ONE])
    lease = await stage.run(taken_over(chunk("he", model="public"), chunk("l", model="public")))
    assert text_of(lease) == "hello" and isinstance(lease.fact, RequestCompleted)
    assert [(one.endpoint, one.after) for one in lease.fact.attempts] == [("e1", 2)]
    assert lease.sent[-1].headers == {}
    assert orjson.loads(stage.transport.calls[0].body)["messages"][-1]["content"] == "hel"


@pytest.mark.parametrize(
    ("events", "fields", "reason"),
    [
        ([chunk("he"), chunk(finish="stop")], {}, "stop"),
        ([chunk("he"), chunk("l")], {"max_tokens": 2}, "length"),
    ],
)
async def test_what_lacked_only_its_end_ends_without_an_engine(
    events: list[str], fields: dict[str, Any], reason: str
) -> None:
    stage = Stage(REST, endpoints=[ONE])
    lease = await stage.run(taken_over(*events, stream_options={"include_usage": True}, **fields))
    assert not stage.transport.calls and lease.text.endswith(b"data: [DONE]\n\n")
    assert isinstance(lease.fact, RequestCompleted) and lease.fact.finish_reason == reason
    assert lease.fact.usage.estimated and lease.fact.events == lease.sequence
    assert lease.text.count(b'"usage":{') == 1


@pytest.mark.parametrize("forged", [False, True])
async def test_only_events_with_text_are_billed_of_an_answer_whose_router_died(forged: bool) -> None:
    lease = taken_over(speaker(), chunk("he"), chunk("llo"), chunk(finish="stop"))
    if forged:
        lease.verdicts = {}
    await Stage(endpoints=[endpoint("e1")]).run(lease)
    assert isinstance(lease.fact, RequestFailed) and lease.failure.code == Code.upstream_interrupted
    assert lease.fact.usage == Usage(prompt_tokens=11, completion_tokens=2, estimated=True)


async def test_the_count_that_the_client_has_is_the_one_that_is_billed() -> None:
    lease = taken_over(
        chunk("he"), chunk(finish="stop"), usage_chunk(prompt=7, completion=5), stream_options={"include_usage": True}
    )
    await Stage(endpoints=[ONE]).run(lease)
    assert isinstance(lease.fact, RequestCompleted) and lease.text.count(b'"usage":{') == 1
    assert lease.fact.usage == Usage(prompt_tokens=7, completion_tokens=5, estimated=True)


async def test_a_run_that_was_cancelled_while_nobody_had_it_is_billed_for_what_was_sent() -> None:
    lease = taken_over(speaker(), chunk("he"), chunk("llo"))
    lease.cancelled.set()
    await Stage(endpoints=[ONE]).run(lease)
    assert isinstance(lease.fact, RequestCancelled) and lease.failure.code == Code.cancelled
    assert lease.fact.usage == Usage(prompt_tokens=11, completion_tokens=2, estimated=True)


async def test_a_new_owner_ends_what_it_may_not_continue() -> None:
    for lease in (taken_over(chunk("he")), taken_over(chunk("he"), n=2)):
        stage = Stage(REST, endpoints=[ONE if lease.body.count(b'"n"') else endpoint("e1")])
        await stage.run(lease)
        assert not stage.transport.calls and lease.failure.code == Code.upstream_interrupted


async def test_a_run_that_passed_through_many_hands_is_not_continued_for_ever() -> None:
    lease = taken_over(chunk("he"))
    lease.epoch = 5
    stage = Stage(REST, endpoints=[ONE])
    await stage.run(lease)
    assert not stage.transport.calls and lease.failure.code == Code.upstream_interrupted


async def test_the_edits_of_guards_hold_for_the_rest_too() -> None:
    stage = Stage(BROKEN, REST, endpoints=[ONE, TWO])
    await stage.run(cleared_run(edits=[("/messages/0/content", 0, 2, "[NAME]")]))
    assert [orjson.loads(call.body)["messages"][0]["content"] for call in stage.transport.calls] == ["[NAME]"] * 2
