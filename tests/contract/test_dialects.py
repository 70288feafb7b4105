"""One suite over both transports, scripted and real HTTP, with every dialect on top: same scripts, same truth."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from providers.dialects import dialect_of
from providers.errors import Broken, ConnectFailed, FirstByteTimeout, IdleTimeout, TotalTimeout, UpstreamFault
from providers.fake import JSON, Cut, Delay, FakeTransport, Hang, Head, Piece, Refuse, Script
from providers.httptools_transport import HttptoolsTransport
from providers.openai_openai import DONE
from providers.ports import EngineStream, Question, Timeouts, Transport
from providers.sse import Splitter
from schemas.routes import CHAT, RESPONSES
from tests.responses_support import events_of, valid
from tests.router_support import CLOCK, GOOD_STREAM, chunk, script_server, sse

SHORT = Timeouts(connect_s=0.1, first_byte_s=0.1, idle_s=0.15, total_s=5.0)
LONG = Timeouts()
Opened = tuple[Transport, str]
Stage = Callable[[Sequence[Script]], AbstractAsyncContextManager[Opened]]


@asynccontextmanager
async def scripted(scripts: Sequence[Script]) -> AsyncIterator[Opened]:
    transport = FakeTransport(scripts, CLOCK)
    yield transport, "http://engine/v1/chat/completions"
    assert transport.open_now == 0, "an answer was left open"


@asynccontextmanager
async def over_http(scripts: Sequence[Script]) -> AsyncIterator[Opened]:
    transport = HttptoolsTransport(CLOCK)
    async with script_server(scripts) as server:
        refused = isinstance(scripts[0][0], Refuse)
        try:
            yield transport, ("http://127.0.0.1:1/v1" if refused else server.url) + "/chat/completions"
        finally:
            await transport.close()


@pytest.fixture(params=[scripted, over_http], ids=["fake", "http"])
def stage(request: pytest.FixtureRequest) -> Stage:
    chosen: Stage = request.param
    return chosen


async def relay(opened: Opened, timeouts: Timeouts = LONG, route: str = CHAT) -> tuple[int, bytes, EngineStream]:
    """Status, the bytes for the client, the stream."""
    transport, url = opened
    question = Question(run="r-1", route=route, model="public", body=b'{"input": []}', stream=True)
    stream, splitter, out = dialect_of(route).stream(question), Splitter(), b""
    response = await transport.open(url, {"content-type": "application/json"}, b"{}", timeouts, private=True)
    try:
        while piece := await response.read():
            for data in splitter.feed(piece):
                out += stream.take(data) or b""
        for data in splitter.finish():
            out += stream.take(data) or b""
        return response.status, out + stream.ending(), stream
    finally:
        response.close()


def pieces(stream: bytes, size: int) -> list[Piece]:
    return [Piece(stream[at : at + size]) for at in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_a_stream_is_relayed_whole_however_it_is_cut(stage: Stage, size: int) -> None:
    async with stage([[Head(), *pieces(GOOD_STREAM, size)]]) as opened:
        status, out, stream = await relay(opened)
    assert status == 200 and out.endswith(DONE) and out.count(b"\n\n") == 4
    assert b"engine-7b" not in out and out.count(b'"model":"public"') == 3
    assert stream.usage is not None and stream.usage.completion_tokens == 2


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_a_response_is_told_whole_however_its_chat_is_cut(stage: Stage, size: int) -> None:
    async with stage([[Head(), *pieces(GOOD_STREAM, size)]]) as opened:
        status, out, stream = await relay(opened, route=RESPONSES)
    events = events_of(out)
    assert status == 200 and events[-1]["type"] == "response.completed" and b"engine-7b" not in out
    assert valid(events[-1]["response"]).output_text == "hello"
    assert stream.usage is not None and stream.usage.completion_tokens == 2


async def test_line_ends_comments_and_missing_done_do_not_matter(stage: Stage) -> None:
    ragged = (
        b"\xef\xbb\xbf: hello\r\n\r\ndata:"
        + chunk("é").encode()
        + b"\r\rid: 1\ndata: "
        + chunk(finish="stop").encode()
        + b"\n"
    )
    async with stage([[Head(), *pieces(ragged, 5)]]) as opened:
        _, out, stream = await relay(opened)
    assert out.count(b"\n\n") == 3 and stream.finish_reason == "stop"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ([Refuse()], ConnectFailed),
        ([Cut()], Broken),
        ([Head(), Cut()], Broken),
        ([Head(), Piece(GOOD_STREAM[:40]), Cut()], Broken),
        ([Head(), Piece(sse(chunk("a")))], Broken),
        ([Hang()], FirstByteTimeout),
        ([Head(), Hang()], FirstByteTimeout),
        ([Head(), Piece(sse(chunk("a"))), Hang()], IdleTimeout),
        ([Head(), Piece(sse(chunk("a"))), Delay(3.0), Piece(sse("[DONE]"))], IdleTimeout),
    ],
)
@pytest.mark.parametrize("route", [CHAT, RESPONSES])
async def test_every_fault_has_its_name(stage: Stage, script: Script, fault: type[UpstreamFault], route: str) -> None:
    async with stage([script]) as opened:
        with pytest.raises(fault):
            await relay(opened, SHORT, route)


async def test_pauses_within_the_limits_are_no_fault(stage: Stage) -> None:
    events = [sse(chunk("a")), sse(chunk("b")), sse(chunk(finish="stop"))]
    script = [Head(), *[step for event in events for step in (Piece(event), Delay(0.08))]]
    async with stage([script]) as opened:
        _, out, _ = await relay(opened, SHORT)
    assert out.endswith(DONE)


async def test_the_whole_call_has_a_limit_of_its_own(stage: Stage) -> None:
    endless = [Head(), *[step for _ in range(40) for step in (Piece(sse(chunk("a"))), Delay(0.02))]]
    async with stage([endless]) as opened:
        with pytest.raises(TotalTimeout):
            await relay(opened, Timeouts(connect_s=1, first_byte_s=1, idle_s=1, total_s=0.2))


async def test_redirects_are_not_followed(stage: Stage) -> None:
    async with stage([[Head(307, {"location": "http://127.0.0.1:1/stolen"})], [Cut()]]) as opened:
        response = await opened[0].open(opened[1], {"authorization": "Bearer x"}, b"{}", LONG, private=True)
        assert response.status == 307
        response.close()


async def test_a_status_and_its_body_are_readable(stage: Stage) -> None:
    async with stage([[Head(429, {**JSON, "retry-after": "3"}), Piece(b'{"error":'), Piece(b'"slow"}')]]) as opened:
        response = await opened[0].open(opened[1], {}, b"{}", LONG, private=True)
        assert response.status == 429 and response.headers["retry-after"] == "3"
        body = b""
        while piece := await response.read():
            body += piece
        assert body == b'{"error":"slow"}'
        response.close()
