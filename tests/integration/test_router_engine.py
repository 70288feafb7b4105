"""The router against a real engine process over real sockets: bench.mock_engine, which keeps its own books."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from base.ids import SystemRandom
from providers.fake import JSON, Cut, Delay, Head, Piece, Script
from providers.httptools_transport import HttptoolsTransport
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed
from schemas.frames import DATA
from schemas.records import EndpointRecord
from state.memory import MemoryCatalog
from tests.router_support import (
    CLOCK,
    VERIFIER,
    MemoryLease,
    alone,
    chunk,
    cleared_run,
    completion,
    endpoint,
    script_server,
    sse,
    until,
)
from workers.router.app import make_router
from workers.router.handlers import Router
from workers.router.settings import RouterSettings


class NoCredentials:
    """Local engines need none."""

    def reveal(self, endpoint: EndpointRecord) -> str:
        return ""


@dataclass
class Engine:
    """A running mock engine; `url` ends in /v1."""

    url: str

    async def page(self, path: str) -> dict[str, Any]:
        async with aiohttp.ClientSession() as http, http.get(self.url.removesuffix("/v1") + path) as answer:
            found: dict[str, Any] = await answer.json()
            return found


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mock_engine", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        yield Engine(line.split()[-1])
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def routing(*urls: str, settings: RouterSettings | None = None, slots: int = 64) -> AsyncIterator[Router]:
    transport = HttptoolsTransport(CLOCK)
    endpoints = [endpoint(f"e{n}", url, slots=slots, upstream_model="mock") for n, url in enumerate(urls)]
    catalog = MemoryCatalog(endpoints=endpoints)
    try:
        yield make_router(
            settings or RouterSettings(), transport, catalog, NoCredentials(), VERIFIER, CLOCK, SystemRandom(), alone()
        )
    finally:
        await transport.close()


async def serve(router: Router, lease: MemoryLease) -> MemoryLease:
    await router.handle(lease)
    return lease


def asking(prompt: str, **fields: Any) -> MemoryLease:
    return cleared_run(messages=[{"role": "user", "content": prompt}], **fields)


async def test_fifty_streams_side_by_side_are_whole_and_billed_as_the_engine_counted(engine: Engine) -> None:
    async with routing(engine.url) as router:
        leases = await asyncio.gather(*(serve(router, asking("one two three", max_tokens=20)) for _ in range(50)))
    for lease in leases:
        assert isinstance(lease.fact, RequestCompleted)
        assert (lease.fact.usage.prompt_tokens, lease.fact.usage.completion_tokens) == (3, 20)
        assert not lease.fact.usage.estimated and lease.text.count(b'"model":"public"') == 22
    assert (await engine.page("/_mock/stats"))["aborted"] == 0


async def test_more_runs_than_slots_wait_and_all_end(engine: Engine) -> None:
    async with routing(engine.url, slots=4) as router:
        leases = await asyncio.gather(*(serve(router, asking("x", max_tokens=3, stream=False)) for _ in range(40)))
    assert all(isinstance(lease.fact, RequestCompleted) for lease in leases)


async def test_pieces_arrive_one_by_one(engine: Engine) -> None:
    await engine.page("/_mock/set?itl_ms=60")
    async with routing(engine.url) as router:
        lease = await serve(router, asking("x", max_tokens=5))
    assert [one.kind for one in lease.sent].count(DATA) >= 4


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cancel_is_seen_by_the_engine(engine: Engine, stream: bool) -> None:
    await engine.page("/_mock/set?itl_ms=100&ttft_ms=50")
    async with routing(engine.url) as router:
        lease = asking("x", max_tokens=1000, stream=stream)
        task = asyncio.create_task(serve(router, lease))
        if stream:
            await until(lambda: lease.sequence >= 2)
        else:
            while not (await engine.page("/_mock/stats"))["live"]:
                await CLOCK.sleep(0.01)
        lease.cancelled.set()
        await task
        while not (await engine.page("/_mock/stats"))["aborted"]:
            await CLOCK.sleep(0.01)
    assert isinstance(lease.fact, RequestCancelled)
    if stream:
        tokens = (await engine.page("/_mock/stats"))["tokens"]
        assert lease.fact.usage and lease.fact.usage.estimated and 1 <= lease.fact.usage.completion_tokens <= tokens


async def test_a_cut_stream_is_never_billed_above_the_engines_own_count(engine: Engine) -> None:
    async with routing(engine.url) as router:
        lease = await serve(router, asking("x @@cut=5 @@id=cut1", max_tokens=50))
    assert isinstance(lease.fact, RequestFailed)
    (attempt,) = (await engine.page("/_mock/ledger?id=cut1"))["cut1"]
    if lease.fact.usage:
        assert lease.fact.usage.completion_tokens <= attempt["tokens"] == 5


async def test_an_engine_that_is_away_is_passed_over(engine: Engine) -> None:
    async with routing("http://127.0.0.1:1/v1", engine.url) as router:
        leases = [await serve(router, asking("x", max_tokens=3)) for _ in range(4)]
    assert all(isinstance(lease.fact, RequestCompleted) for lease in leases)


async def test_a_line_of_a_megabyte_passes() -> None:
    text = "é" * 1_000_000
    script: Script = [Head(), Piece(sse(chunk(text), chunk(finish="stop"), "[DONE]"))]
    async with script_server([script]) as server, routing(server.url) as router:
        lease = await serve(router, cleared_run())
    assert text.encode() in lease.text and isinstance(lease.fact, RequestCompleted)


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    slow_end: Script = [Head(), Piece(sse(chunk("a"), chunk(finish="stop"), "[DONE]")), Delay(0.01)]
    whole: Script = [Head(200, JSON), Piece(completion())]
    async with script_server([slow_end, whole, slow_end]) as server, routing(server.url) as router:
        for stream in (True, False, True):
            await serve(router, cleared_run(stream=stream))
        assert server.connections == 1 and len(server.requests) == 3


async def test_the_engine_is_not_asked_for_compression_and_not_told_who_asks() -> None:
    async with script_server([[Head(200, JSON), Piece(completion())]]) as server, routing(server.url) as router:
        await serve(router, cleared_run(stream=False))
    head = server.requests[0][0].lower()
    assert b"accept-encoding: identity" in head and b"authorization" not in head and b"user-agent: headrace\r" in head


async def test_a_kept_connection_that_the_engine_closed_unannounced_costs_nothing() -> None:
    """As llama.cpp does after each stream: the close meets the next request."""
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(completion())
    ) + completion()
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        served += 1
        writer.write(answer)
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with routing(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as router:
        for _ in range(5):
            lease = await serve_one(router)
            assert isinstance(lease.fact, RequestCompleted) and len(lease.fact.attempts) == 1
    server.close()
    assert served == 5


async def test_an_engine_that_answers_nothing_on_a_new_connection_is_called_once() -> None:
    async with script_server([[Cut()]]) as server, routing(server.url) as router:
        lease = await serve_one(router)
        assert isinstance(lease.fact, RequestFailed) and len(server.requests) == 1


async def serve_one(router: Router) -> MemoryLease:
    return await serve(router, cleared_run(stream=False))
