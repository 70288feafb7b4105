"""The chat route over real sockets: the official client, statuses, pieces, silence."""

from __future__ import annotations

import asyncio

import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionMessageParam

from policy.durability import StrictRuns
from schemas.errors import Code, Failure, Refusal, Unavailable
from schemas.frames import END
from tests.ingress_support import (
    PlayedRun,
    chat_body,
    chunk,
    completion,
    connected,
    gateway,
    head,
    post,
    raw,
    read_answer,
    read_chunk,
    read_head,
    until,
)

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


async def answer_hello(run: PlayedRun) -> None:
    if run.new.accepted.stream:
        await run.data("Hel", headers={"x-ratelimit-remaining-requests": "59"})
        await run.data("lo")
        await run.done()
    else:
        await run.answer(completion("Hello"), {"x-ratelimit-remaining-requests": "59"})


async def test_the_official_client_gets_its_answer() -> None:
    async with gateway(answer_hello) as up, up.client() as client:
        answer = await client.chat.completions.create(model="tiny", messages=HELLO, extra_body={"top_k": 3})
        assert answer.choices[0].message.content == "Hello"
        run = next(iter(up.door.runs.values()))
        assert orjson.loads(run.new.body)["top_k"] == 3


async def test_the_official_client_streams() -> None:
    async with gateway(answer_hello) as up, up.client() as client:
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == "Hello"


async def test_what_is_accepted_says_who_what_and_how_long() -> None:
    lines = (
        "x-stainless-read-timeout: 30",
        "X-Client-Request-Id: mine-1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    async with gateway(answer_hello, on_disconnect="grace:5") as up:
        answer = await raw(up.port, post(up.token, chat_body(max_tokens=7), *lines))
        new = up.door.runs[answer.headers["x-headrace-run"]].new
        accepted = new.accepted
        assert (accepted.key_id, accepted.secret_mac) == (up.key.key_id, up.key.secret_mac)
        assert (accepted.model, accepted.stream, accepted.max_tokens) == ("tiny", False, 7)
        assert (accepted.door, accepted.families) == ("door-1", ("authorization", "rules"))
        assert (accepted.client_request_id, accepted.on_disconnect) == ("mine-1", "grace:5")
        assert new.deadline_ms == 30_000
        assert new.trace.startswith("00-0af7651916cd43dd")
        assert up.token not in repr(new)


async def test_every_answer_is_named_after_its_run() -> None:
    async with gateway(answer_hello) as up:
        for stream in (False, True):
            answer = await raw(up.port, post(up.token, chat_body(stream=stream), "x-request-id: the-callers-own"))
            assert answer.headers["x-request-id"] == answer.headers["x-headrace-run"]
            assert answer.headers["x-request-id"] in up.door.runs
            assert int(answer.headers["openai-processing-ms"]) >= 0
            assert answer.headers["x-ratelimit-remaining-requests"] == "59"
            assert "server" not in answer.headers


async def test_a_stream_has_the_head_that_proxies_and_clients_need() -> None:
    async with gateway(answer_hello) as up:
        answer = await raw(up.port, post(up.token, chat_body(stream=True)))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in answer.headers
        for forbidden in (b"\nid:", b"retry:", b"event:"):
            assert forbidden not in b"\n" + answer.body
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert answer.clean


async def test_the_connection_serves_the_next_request_right_after_done() -> None:
    async with gateway(answer_hello) as up, connected(up.port) as (reader, writer):
        for _ in range(3):
            writer.write(post(up.token, chat_body(stream=True)))
            assert (await read_answer(reader)).body.endswith(b"[DONE]\n\n")


async def test_pieces_arrive_one_by_one() -> None:
    async with gateway() as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        for number, text in enumerate(("a", "b", "c")):
            await run.data(text)
            if number == 0:
                await read_head(reader)
            assert await read_chunk(reader) == chunk(text)  # and only then the next one is made
        await run.done()


async def test_bytes_of_the_engine_pass_untouched() -> None:
    odd = 'data: {"choices":[{"index":0,"delta":{"content":"\u2028 \u2029 \x85 data: [DONE] 🚰"}}]}\n\n'.encode()

    async def script(run: PlayedRun) -> None:
        await run.put(END, odd + b"data: [DONE]\n\n", 2)

    async with gateway(script) as up, up.client() as client:
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        texts = [piece.choices[0].delta.content async for piece in stream]
        assert texts == ["\u2028 \u2029 \x85 data: [DONE] 🚰"]
        answer = await raw(up.port, post(up.token, chat_body(stream=True)))
        assert answer.body == odd + b"data: [DONE]\n\n"


async def test_a_chunked_upload_is_a_request_like_any_other() -> None:
    body = chat_body()
    request = head("POST", "/v1/chat/completions", None, "x-api-key: KEY", "transfer-encoding: chunked")
    async with gateway(answer_hello) as up, connected(up.port) as (reader, writer):
        writer.write(request.replace(b"KEY", up.token.encode()))
        for byte in body:
            writer.write(b"1\r\n" + bytes([byte]) + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await read_answer(reader)).status == 200


FAILURES = [
    (Failure(code=Code.content_policy_violation, message="card"), openai.BadRequestError, 400),
    (Failure(code=Code.invalid_api_key, message="revoked"), openai.AuthenticationError, 401),
    (Failure(code=Code.permission_denied, message="scope"), openai.PermissionDeniedError, 403),
    (Failure(code=Code.model_not_found, message="no", param="model"), openai.NotFoundError, 404),
    (Failure(code=Code.rate_limit_exceeded, message="rpm", retry_after_ms=1500), openai.RateLimitError, 429),
    (Failure(code=Code.upstream_error, message="all failed"), openai.InternalServerError, 502),
    (Failure(code=Code.no_engine, message="none"), openai.InternalServerError, 503),
    (Failure(code=Code.deadline_exceeded, message="late", should_retry=False), openai.InternalServerError, 504),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("failure", "kind", "status"), FAILURES)
async def test_the_first_frame_decides_the_status(
    failure: Failure, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    async def script(run: PlayedRun) -> None:
        await run.fail(failure, {"x-ratelimit-limit-requests": "60"})

    async with gateway(script) as up, up.client() as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="tiny", messages=HELLO, stream=stream)
    error = caught.value
    assert error.status_code == status
    assert error.param == failure.param
    assert isinstance(error.body, dict) and set(error.body) == {"message", "type", "param", "code", "doc_url"}
    assert error.response.headers["x-ratelimit-limit-requests"] == "60"
    if failure.retry_after_ms:
        assert error.response.headers["retry-after"] == "2"
        assert error.response.headers["retry-after-ms"] == "1500"
    if failure.should_retry is False:
        assert error.response.headers["x-should-retry"] == "false"


async def test_a_failure_in_mid_stream_is_one_error_event_and_never_a_done() -> None:
    async def script(run: PlayedRun) -> None:
        await run.data("Hel")
        await run.fail(Failure(code=Code.upstream_interrupted, message="the engine broke off"))

    async with gateway(script) as up, up.client() as client:
        answer = await raw(up.port, post(up.token, chat_body(stream=True)))
        assert answer.status == 200
        events = answer.body.split(b"\n\n")
        assert len(events) == 3 and events[2] == b""
        assert orjson.loads(events[1][6:])["error"] == {
            "message": "the engine broke off",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_interrupted",
            "doc_url": "/docs/errors/upstream_interrupted",
        }
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "upstream_interrupted"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refusal.of(Code.upstream_interrupted, "begun again"), "upstream_interrupted"),
        (RuntimeError("a bug"), "internal_error"),
    ],
)
async def test_a_watch_that_breaks_in_mid_stream_ends_in_an_error_event(error: Exception, code: str) -> None:
    async def script(run: PlayedRun) -> None:
        await run.data("Hel")
        await until(lambda: run.handed == 1)
        await run.break_with(error)

    async with gateway(script) as up:
        answer = await raw(up.port, post(up.token, chat_body(stream=True)))
        assert orjson.loads(answer.body.split(b"\n\n")[1][6:])["error"]["code"] == code
        assert b"[DONE]" not in answer.body
        run = await up.door.first()
        await until(lambda: run.left == ["left"])
        assert run.watching == 0


async def test_an_answer_that_has_begun_outlasts_an_outage_of_the_store() -> None:
    async with gateway(keep_alive=0.02) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        await run.data("Hel")
        status, _ = await read_head(reader)
        assert status == 200
        await run.break_with(Unavailable("gone"))
        for _ in range(3):
            await reader.readuntil(b": keep-alive")
        await run.break_with(None)
        await run.data("lo")
        await run.done()
        assert b"lo" in await reader.readuntil(b"[DONE]")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refusal.of(Code.overloaded, "full", retry_after_ms=300), 503, "server_is_overloaded"),
        (Unavailable("Redis is not connected"), 503, "store_unavailable"),
        (RuntimeError("a bug"), 500, "internal_error"),
    ],
)
async def test_what_cannot_be_accepted_fails_with_a_status(error: Exception, status: int, code: str) -> None:
    async with gateway() as up:
        up.door.refusal = error
        answer = await raw(up.port, post(up.token, chat_body()))
        assert (answer.status, answer.error["code"]) == (status, code)
        assert "x-headrace-run" not in answer.headers
        assert "a bug" not in str(answer.error)
        if status == 503:
            assert "retry-after" in answer.headers and "retry-after-ms" in answer.headers


async def test_silence_before_the_first_frame_is_no_byte_until_commit() -> None:
    async with gateway(commit_after=30) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.15)
        await run.fail(Failure(code=Code.no_engine, message="none"))
        assert (await read_answer(reader)).status == 503


async def test_a_long_wait_commits_with_200_and_comments_and_then_fails_by_event() -> None:
    async with gateway(commit_after=0.05, keep_alive=0.05) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        status, _ = await read_head(reader)
        assert status == 200
        for _ in range(3):
            assert await read_chunk(reader) == b": keep-alive\n\n"
        await run.fail(Failure(code=Code.no_engine, message="none"))
        while (piece := await read_chunk(reader)) == b": keep-alive\n\n":
            pass
        assert orjson.loads(piece[6:])["error"]["code"] == "server_is_overloaded"
        assert await read_chunk(reader) == b""


async def test_comments_between_pieces_are_nothing_to_the_official_client() -> None:
    async def script(run: PlayedRun) -> None:
        await asyncio.sleep(0.12)
        await run.data("Hel")
        await asyncio.sleep(0.12)
        await run.data("lo")
        await run.done()

    async with gateway(script, commit_after=0.03, keep_alive=0.03) as up, up.client() as client:
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        assert "".join([piece.choices[0].delta.content or "" async for piece in stream]) == "Hello"


async def test_a_unary_answer_never_begins_before_its_end() -> None:
    async with gateway(commit_after=0.02, keep_alive=0.02) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body()))
        run = await up.door.first()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.15)
        await run.fail(Failure(code=Code.upstream_timeout, message="silent"))
        assert (await read_answer(reader)).status == 504


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_nobody_ends_is_given_up_after_its_deadline(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingress.routes.work.OVERDUE_S", 0.05)
    async with gateway() as up:
        answer = await raw(up.port, post(up.token, chat_body(stream=stream), "x-stainless-read-timeout: 0.05"))
        assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
        assert answer.headers["x-should-retry"] == "false"
        run = await up.door.first()
        await until(lambda: run.left == ["left"])


async def test_fifty_streams_at_once_each_get_their_own() -> None:
    async def script(run: PlayedRun) -> None:
        text = orjson.loads(run.new.body)["messages"][0]["content"]
        for letter in text:
            await run.data(letter)
            await asyncio.sleep(0)
        await run.done()

    async with gateway(script) as up, up.client() as client:

        async def one(number: int) -> str:
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"number {number}"}]
            stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in stream])

        assert await asyncio.gather(*(one(n) for n in range(50))) == [f"number {n}" for n in range(50)]


@pytest.mark.parametrize(
    ("rule", "line", "strict"),
    [
        (StrictRuns(), "", False),
        (StrictRuns(), "x-headrace-durability: strict", True),
        (StrictRuns(models=("ti*",)), "", True),
        (StrictRuns(models=("big",)), "", False),
        (StrictRuns(keys=("*",)), "", True),
        (StrictRuns(keys=("other",)), "", False),
        (StrictRuns(lanes=("interactive",)), "", True),
        (StrictRuns(lanes=("batch",)), "", False),
        (StrictRuns(lanes=("batch",)), "x-headrace-durability: strict", True),
    ],
    ids=str,
)
async def test_run_is_strict_by_rule_or_by_request(rule: StrictRuns, line: str, strict: bool) -> None:
    async with gateway(answer_hello, strict=rule) as up:
        assert (await raw(up.port, post(up.token, chat_body(), *([line] if line else [])))).status == 200
        assert next(iter(up.door.runs.values())).new.strict is strict
