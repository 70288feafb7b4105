"""A cleared run's way to its end, on the scripted transport."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import orjson
import pytest

from base.ids import SystemRandom
from providers.fake import JSON, Cut, Delay, FakeTransport, Hang, Head, Piece, Refuse, Script
from schemas.errors import Code, Unavailable, status_of
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.frames import DATA, END, ERROR
from schemas.records import EndpointRecord
from state.memory import MemoryCatalog
from tests.router_support import (
    CLOCK,
    GOOD_STREAM,
    VERIFIER,
    MemoryLease,
    alone,
    chunk,
    cleared_run,
    completion,
    endpoint,
    sse,
    until,
    usage_chunk,
)
from workers.router.app import make_router
from workers.router.handlers import Router
from workers.router.settings import RouterSettings

QUICK = RouterSettings(connect_timeout_s=0.05, first_byte_timeout_s=0.05, idle_timeout_s=0.05)
GOOD: Script = [Head(), Piece(GOOD_STREAM)]
UNARY: Script = [Head(200, JSON), Piece(completion())]


class PlainCredentials:
    """Credentials that are not sealed."""

    def reveal(self, endpoint: EndpointRecord) -> str:
        if endpoint.credential == "broken":
            raise ValueError("does not open")
        return endpoint.credential


class Stage:
    """A router over scripts; `router` may be used for several runs."""

    def __init__(
        self,
        *scripts: Script,
        endpoints: Sequence[EndpointRecord] = (endpoint(),),
        settings: RouterSettings = QUICK,
    ) -> None:
        self.transport = FakeTransport(scripts, CLOCK)
        self.catalog = MemoryCatalog(endpoints=endpoints)
        self.router: Router = make_router(
            settings, self.transport, self.catalog, PlainCredentials(), VERIFIER, CLOCK, SystemRandom(), alone(settings)
        )

    async def run(self, lease: MemoryLease) -> MemoryLease:
        await self.router.handle(lease)
        assert self.transport.open_now == 0, "the engine's connection was left open"
        return lease


THREE = (endpoint("e1"), endpoint("e2"), endpoint("e3"))


async def test_a_stream_that_arrives_at_once_is_one_frame_that_ends_the_run() -> None:
    lease = await Stage(GOOD).run(cleared_run())
    (frame,) = lease.sent
    assert (frame.kind, frame.events) == (END, 4)
    assert frame.payload.endswith(b"data: [DONE]\n\n") and b"engine-7b" not in frame.payload
    assert frame.headers["x-headrace-endpoint"] == "e1"
    assert frame.headers["content-type"].startswith("text/event-stream")
    fact = lease.fact
    assert isinstance(fact, RequestCompleted)
    assert (fact.usage, fact.finish_reason, fact.events) == (
        Usage(prompt_tokens=7, completion_tokens=2),
        "stop",
        4,
    )
    assert [(one.endpoint, one.outcome, one.status) for one in fact.attempts] == [("e1", "ok", 200)]


async def test_a_unary_answer_is_one_event() -> None:
    lease = await Stage(UNARY).run(cleared_run(stream=False))
    (frame,) = lease.sent
    assert (frame.kind, frame.events) == (END, 1)
    assert orjson.loads(frame.payload)["model"] == "public"
    assert isinstance(lease.fact, RequestCompleted) and lease.fact.usage.cached_tokens == 3


async def test_the_engine_gets_its_own_name_its_credential_and_the_edited_body() -> None:
    stage = Stage(GOOD, endpoints=[endpoint(url="https://engine.example/v1/", credential="c1", private=False)])
    await stage.run(cleared_run(edits=[("/messages/0/content", 0, 2, "[NAME]")], top_k=3))
    (call,) = stage.transport.calls
    sent = orjson.loads(call.body)
    assert call.url == "https://engine.example/v1/chat/completions" and not call.private
    assert call.headers["authorization"] == "Bearer c1"
    assert sent["model"] == "engine-7b" and sent["top_k"] == 3 and sent["messages"][0]["content"] == "[NAME]"
    assert sent["stream_options"] == {"include_usage": True}


async def test_the_speaker_and_the_first_words_leave_at_once_and_later_ones_together() -> None:
    first = [step for _ in range(2) for step in (Piece(sse(chunk("x"))), Delay(0.02))]
    events = [*first, *(Piece(sse(chunk("x"))) for _ in range(18))]
    settings = RouterSettings(coalesce_ms=5_000, coalesce_max_ms=5_000)
    script: Script = [Head(), *events, Piece(sse(chunk(finish="stop"), "[DONE]"))]
    lease = await Stage(script, settings=settings).run(cleared_run())
    assert [(one.kind, one.events) for one in lease.sent] == [(DATA, 1), (DATA, 1), (END, 20)]


async def test_an_event_is_not_held_longer_than_the_gap() -> None:
    settings = RouterSettings(coalesce_ms=20, coalesce_max_ms=20)
    script: Script = [Head(), Piece(sse(chunk("a"))), Piece(sse(chunk("b"))), Hang()]
    stage, lease = Stage(script, settings=settings), cleared_run()
    task = asyncio.create_task(stage.run(lease))
    await until(lambda: lease.sequence == 2)
    assert [one.kind for one in lease.sent] == [DATA, DATA]
    lease.cancelled.set()
    await task


@pytest.mark.parametrize("fault", [[Refuse()], [Cut()], [Hang()], [Head(500)], [Head(429)], [Head(), Cut()],
                                   [Head(401)], [Head(404)], [Head(200, JSON), Piece(b"{}")],
                                   [Head(), Piece(sse("not json"))], [Head(), Piece(sse("[DONE]"))],
                                   [Head(), Piece(sse('{"error": {"message": "x"}}'))],
                                   [Head(302, {"location": "http://x"})]])  # fmt: skip
async def test_a_fault_before_the_first_frame_is_retried_elsewhere(fault: Script) -> None:
    stage = Stage(fault, GOOD, endpoints=THREE)
    lease = await stage.run(cleared_run())
    assert isinstance(lease.fact, RequestCompleted)
    first, second = lease.fact.attempts
    assert first.endpoint != second.endpoint and first.outcome != "ok" and second.outcome == "ok"
    assert len(stage.transport.calls) == 2


async def test_no_endpoint_is_tried_twice_and_at_most_three_are() -> None:
    stage = Stage([Refuse()], endpoints=[*THREE, endpoint("e4")])
    lease = await stage.run(cleared_run())
    assert len({one.endpoint for one in fact_of(lease).attempts}) == 3
    assert lease.failure.code == Code.upstream_error


async def test_the_retry_budget_holds_for_the_whole_process() -> None:
    stage = Stage([Refuse()], endpoints=THREE)
    for _ in range(40):
        await stage.run(cleared_run())
    assert len(stage.transport.calls) <= 40 + 10 + 8


@pytest.mark.parametrize(("status", "shown"), [(400, 400), (422, 400), (413, 413)])
async def test_the_engines_refusal_of_a_request_is_passed_on_and_not_retried(status: int, shown: int) -> None:
    body = b'{"error": {"message": "bad top_k", "type": "BadRequest", "param": "top_k", "code": "odd"}}'
    stage = Stage([Head(status, JSON), Piece(body)], endpoints=THREE)
    lease = await stage.run(cleared_run())
    failure = lease.failure
    assert (status_of(failure), failure.type, failure.public_code, failure.param) == (
        shown,
        "BadRequest",
        "odd",
        "top_k",
    )
    assert len(stage.transport.calls) == 1


async def test_our_bad_credential_is_a_502_and_never_the_clients_401() -> None:
    lease = await Stage([Head(401, JSON), Piece(b'{"error": "Incorrect API key"}')]).run(cleared_run())
    assert status_of(lease.failure) == 502 and "key" not in lease.failure.message


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ([Cut()], Code.upstream_interrupted),
        ([Hang()], Code.upstream_timeout),
        ([], Code.upstream_interrupted),
        ([Piece(sse('{"broken'))], Code.upstream_interrupted),
        ([Piece(sse('{"error": {"message": "out of memory"}}'))], Code.upstream_interrupted),
    ],
)
async def test_a_stream_that_breaks_after_its_first_frame_ends_with_one_error(last: Script, code: Code) -> None:
    stage = Stage([Head(), Piece(sse(chunk("a"))), Delay(0.02), Piece(sse(chunk("b"))), *last], endpoints=THREE)
    lease = await stage.run(cleared_run())
    assert lease.failure.code == code and lease.text.count(b"\n\n") == 2 and b"broken" not in lease.text
    assert len(stage.transport.calls) == 1
    fact = fact_of(lease)
    assert fact.usage == Usage(prompt_tokens=11, completion_tokens=2, estimated=True)
    assert fact.events == 3 == lease.sequence


async def test_a_run_without_usage_from_the_engine_is_counted_and_marked() -> None:
    script: Script = [Head(), Piece(sse(chunk("a"), chunk("b"), chunk(finish="stop"), "[DONE]"))]
    lease = await Stage(script).run(cleared_run())
    assert isinstance(lease.fact, RequestCompleted)
    assert lease.fact.usage == Usage(prompt_tokens=11, completion_tokens=2, estimated=True)


async def test_usage_is_shown_to_a_client_that_asked() -> None:
    lease = await Stage(GOOD).run(cleared_run(stream_options={"include_usage": True}))
    assert usage_chunk(model="public").encode() in lease.text and lease.sequence == 5


@pytest.mark.parametrize("script", [[Hang()], [Head(), Hang()], [Head(), Piece(sse(chunk("a"))), Hang()]])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_cancel_closes_the_engine_in_every_phase(script: Script, stream: bool) -> None:
    stage, lease = Stage(script, settings=RouterSettings()), cleared_run(stream=stream)
    task = asyncio.create_task(stage.run(lease))
    await until(lambda: stage.transport.open_now == 1)
    if stream and len(script) == 3:
        await until(lambda: lease.sequence == 1)
    lease.cancelled.set()
    await task
    assert isinstance(lease.fact, RequestCancelled) and lease.failure.code == Code.cancelled
    assert [one.outcome for one in lease.fact.attempts] == ["cancelled"]
    if stream and len(script) == 3:
        assert lease.fact.usage == Usage(prompt_tokens=11, completion_tokens=1, estimated=True)


async def test_a_run_cancelled_before_its_start_calls_no_engine() -> None:
    stage, lease = Stage(GOOD), cleared_run()
    lease.cancelled.set()
    await stage.run(lease)
    assert isinstance(lease.fact, RequestCancelled) and not stage.transport.calls


async def test_a_stop_of_the_process_is_not_taken_for_a_cancel() -> None:
    stage, lease = Stage([Hang()], settings=RouterSettings()), cleared_run()
    task = asyncio.create_task(stage.run(lease))
    await until(lambda: stage.transport.open_now == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lease.fact is None and not lease.sent and stage.transport.open_now == 0


async def test_a_lost_run_stops_silently() -> None:
    lease = cleared_run()
    lease.lost = True
    await Stage(GOOD).run(lease)
    assert not lease.sent and lease.fact is None


async def test_a_run_whose_earlier_owner_sent_events_is_never_answered_again() -> None:
    stage, lease = Stage(GOOD), cleared_run()
    lease.sequence = 4
    await stage.run(lease)
    assert lease.failure.code == Code.upstream_interrupted and not stage.transport.calls
    # its stream does not say what the four were: three of them may have been without text
    assert fact_of(lease).usage == Usage(prompt_tokens=11, completion_tokens=1, estimated=True)


async def test_a_run_with_a_forged_verdict_never_reaches_an_engine() -> None:
    stage, lease = Stage(GOOD), cleared_run()
    await stage.run(forged := replace(lease, verdicts={**lease.verdicts, "rules": cleared_run().verdicts["rules"]}))
    assert not stage.transport.calls and forged.failure.code == Code.internal_error


async def test_a_run_without_an_endpoint_ends_with_no_engine() -> None:
    lease = await Stage(GOOD, endpoints=[endpoint(up=False)]).run(cleared_run())
    assert lease.failure.code == Code.no_engine and lease.failure.retry_after_ms is None


async def test_runs_wait_for_a_slot_in_their_order() -> None:
    stage = Stage(
        [Head(), Piece(GOOD_STREAM[:30]), Delay(0.02), Piece(GOOD_STREAM[30:])], endpoints=[endpoint(slots=1)]
    )
    leases, ended = [cleared_run() for _ in range(6)], list[int]()

    async def one(index: int) -> None:
        await stage.router.handle(leases[index])
        ended.append(index)

    await asyncio.gather(*(one(index) for index in range(6)))
    assert ended == list(range(6)) and all(isinstance(lease.fact, RequestCompleted) for lease in leases)


async def test_a_run_that_gets_no_slot_in_its_time_ends_with_its_deadline() -> None:
    stage = Stage([Hang()], endpoints=[endpoint(slots=1)], settings=RouterSettings())
    holder = cleared_run()
    task = asyncio.create_task(stage.router.handle(holder))
    await until(lambda: stage.transport.open_now == 1)
    lease = cleared_run(deadline_s=0.05)
    await stage.router.handle(lease)
    assert lease.failure.code == Code.deadline_exceeded
    holder.cancelled.set()
    await task


async def test_a_call_never_outlives_the_runs_deadline() -> None:
    lease = await Stage([Hang()], endpoints=THREE, settings=RouterSettings()).run(cleared_run(deadline_s=0.05))
    assert lease.failure.code == Code.deadline_exceeded and len(fact_of(lease).attempts) == 1


async def test_an_endpoint_that_asked_for_rest_gets_no_run_while_there_is_another() -> None:
    stage = Stage([Head(429, {"retry-after": "60"})], GOOD, endpoints=THREE[:2])
    first = await stage.run(cleared_run())
    assert isinstance(first.fact, RequestCompleted)
    tired, awake = (one.endpoint for one in first.fact.attempts)
    for _ in range(4):
        lease = await stage.run(cleared_run())
        assert isinstance(lease.fact, RequestCompleted) and lease.fact.endpoint == awake != tired


@pytest.mark.parametrize(
    "bad",
    [
        endpoint("bad", url="http://x@evil/v1"),
        endpoint("bad", url="http://public.example/v1", credential="c", private=False),
        endpoint("bad", credential="broken"),
    ],
)
async def test_a_badly_described_endpoint_is_not_called(bad: EndpointRecord) -> None:
    stage = Stage(GOOD, endpoints=[bad])
    lease = await stage.run(cleared_run())
    assert not stage.transport.calls and lease.failure.code == Code.upstream_error


async def test_a_catalog_that_is_away_leaves_the_run_untouched() -> None:
    class Away(MemoryCatalog):
        async def endpoints(self, pool: str) -> Sequence[EndpointRecord]:
            raise Unavailable("Redis is away")

    transport = FakeTransport([GOOD], CLOCK)
    router = make_router(QUICK, transport, Away(), PlainCredentials(), VERIFIER, CLOCK, SystemRandom(), alone())
    lease = cleared_run()
    with pytest.raises(Unavailable):
        await router.handle(lease)
    assert not lease.sent and lease.fact is None


async def test_an_endless_unary_answer_is_cut() -> None:
    settings = RouterSettings(max_answer_bytes=1000)
    script: Script = [Head(200, JSON), *[Piece(b" " * 300) for _ in range(10)]]
    lease = await Stage(script, settings=settings).run(cleared_run(stream=False))
    assert lease.failure.code == Code.upstream_error


def fact_of(lease: MemoryLease) -> RequestFailed:
    assert isinstance(lease.fact, RequestFailed) and lease.sent[-1].kind == ERROR
    return lease.fact


async def test_an_answer_without_text_and_without_counts_bills_its_prompt_as_estimated() -> None:
    script: Script = [Head(), Piece(sse(chunk())), Delay(0.01), Piece(sse(chunk(finish="stop"), "[DONE]"))]
    lease = await Stage(script).run(cleared_run())
    assert isinstance(lease.fact, RequestCompleted)
    assert lease.fact.usage == Usage(prompt_tokens=11, estimated=True)
