"""The router under the real runtime on a cluster-enabled Valkey: accepted runs in, frames and terminal facts out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import orjson
import pytest

from base.crypto import digest
from base.ids import SystemRandom, partition_of
from providers.fake import JSON, Cut, Delay, Hang, Head, Piece, Script
from providers.httptools_transport import HttptoolsTransport
from runtime.app import Context, RedisSettings, Stage, Workers
from runtime.door import Bounds, StreamDoor
from runtime.names import prefix, push_channel
from runtime.topology import apply, load
from schemas.envelope import decode
from schemas.events import RequestAccepted, RequestCancelled, RequestCompleted, RequestFailed, Terminal
from schemas.frames import DATA, END, Frame, decode_failure
from schemas.outcomes import Delivery, Outcome
from schemas.ports import NewRun, Watch
from state.memory import MemoryCatalog
from tests.router_support import (
    CLOCK,
    GOOD_STREAM,
    RING,
    VERIFIER,
    NoCredentials,
    alone,
    chunk,
    completion,
    endpoint,
    let_in,
    script_server,
    sse,
)
from workers.router.app import make_router, router_stage
from workers.router.settings import RouterSettings

PARTITIONS = 4


@dataclass
class House:
    """One process: a door, an authorization that lets everybody pass, the router."""

    context: Context
    door: StreamDoor

    async def send(self, *, stream: bool = True, deadline_ms: int = 20_000) -> Watch:
        body = orjson.dumps({"model": "public", "messages": [], "stream": stream})
        event = RequestAccepted(
            run=self.door.mint(), route="/v1/chat/completions", model="public", stream=stream, key_id="k",
            secret_mac="", mac_kid="t1", body_digest=digest(body), body_bytes=len(body), door=self.door.name,
            families=("authorization",), prompt_tokens=5,
        )  # fmt: skip
        return await self.door.accept(NewRun(accepted=event, body=body, deadline_ms=deadline_ms))

    async def fact(self, run: str) -> Terminal:
        """The terminal fact of a run; there is exactly one."""
        rows = await self.context.redis.execute("XRANGE", f"{prefix(partition_of(run))}:facts", "-", "+")
        fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in rows]
        (found,) = [decode(one[b"e"])[1] for one in fields if decode(one[b"e"])[0].run == run]
        assert isinstance(found, RequestCompleted | RequestCancelled | RequestFailed)
        return found


async def pass_all(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
    """Authorization that grants everything."""
    return [let_in(each, tenant="t", pool="pool") for each in deliveries]


@asynccontextmanager
async def house(valkey_url: str, engine_url: str) -> AsyncIterator[House]:
    topology = load()
    settings = RedisSettings(url=valkey_url, allow_no_aof=True)
    context = await Context.open(settings, "one", CLOCK, SystemRandom(), RING, topology, PARTITIONS)
    await apply(topology, PARTITIONS, context.redis)
    transport = HttptoolsTransport(CLOCK)
    catalog = MemoryCatalog(endpoints=[endpoint(url=engine_url, slots=100)])
    router = make_router(
        RouterSettings(), transport, catalog, NoCredentials(), VERIFIER, CLOCK, SystemRandom(), alone()
    )
    stages = [
        Stage(group="authorization", handler=pass_all),
        router_stage(router, catalog, lambda: ("pool",)),
    ]
    door = StreamDoor(
        "one", PARTITIONS, context.scripts, context.runs, context.seals("ingress"), CLOCK, SystemRandom(), Bounds()
    )
    await context.push.listen(
        [push_channel(prefix(n), "one") for n in range(PARTITIONS)], door.hub.hear, door.hub.missed
    )
    await door.beat(context.redis)
    workers = Workers(context=context, stages=stages, grace_s=2.0)
    await workers.start()
    try:
        yield House(context, door)
    finally:
        await workers.stop()
        await transport.close()
        await context.close()


async def frames_of(watch: Watch) -> list[Frame]:
    frames: list[Frame] = []
    while not frames or not frames[-1].terminal:
        frame = await watch.next(10.0)
        assert frame is not None, "no frame came in time"
        frames.append(frame)
    return frames


async def test_a_stream_reaches_its_watcher_whole_and_counted(valkey_cluster: str) -> None:
    script: Script = [Head(), *[step for c in "abcdef" for step in (Piece(sse(chunk(c))), Delay(0.02))],
                      Piece(GOOD_STREAM)]  # fmt: skip
    async with script_server([script]) as server, house(valkey_cluster, server.url) as home:
        watch = await home.send()
        frames = await frames_of(watch)
        assert frames[0].first == 1 and frames[0].headers["x-headrace-endpoint"] == "e1"
        for before, after in pairwise(frames):
            assert after.first == before.sequence + 1
        text = b"".join(frame.payload for frame in frames)
        assert text.count(b"\n\n") == frames[-1].sequence == 10 and text.endswith(b"data: [DONE]\n\n")
        fact = await home.fact(watch.run)
        assert isinstance(fact, RequestCompleted) and fact.events == 10 and fact.usage.completion_tokens == 2


async def test_a_unary_answer_is_one_end_frame(valkey_cluster: str) -> None:
    script: Script = [Head(200, JSON), Piece(completion("hello"))]
    async with script_server([script]) as server, house(valkey_cluster, server.url) as home:
        watch = await home.send(stream=False)
        (frame,) = await frames_of(watch)
        assert frame.kind == END and orjson.loads(frame.payload)["choices"][0]["message"]["content"] == "hello"
        assert isinstance(await home.fact(watch.run), RequestCompleted)


async def test_a_cancelled_run_closes_its_engine_and_bills_what_came(valkey_cluster: str) -> None:
    script: Script = [Head(), Piece(sse(chunk("a"), chunk("b"))), Hang()]
    async with script_server([script]) as server, house(valkey_cluster, server.url) as home:
        watch = await home.send()
        first = await watch.next(10.0)
        assert first is not None and first.kind == DATA
        started = CLOCK.monotonic()
        assert await home.door.cancel(watch.run, "client")
        last = await watch.next(10.0)
        assert last is not None and decode_failure(last.payload).code == "cancelled"
        while not server.gone and CLOCK.monotonic() < started + 5:
            await CLOCK.sleep(0.005)
        assert server.gone == 1
        fact = await home.fact(watch.run)
        assert isinstance(fact, RequestCancelled) and fact.usage is not None
        assert fact.usage.estimated and fact.usage.completion_tokens == 2


async def test_a_broken_stream_ends_with_one_error_frame(valkey_cluster: str) -> None:
    script: Script = [Head(), Piece(sse(chunk("a"))), Delay(0.05), Cut()]
    async with script_server([script]) as server, house(valkey_cluster, server.url) as home:
        watch = await home.send()
        data, error = await frames_of(watch)
        assert (data.kind, decode_failure(error.payload).code) == (DATA, "upstream_interrupted")
        assert isinstance(await home.fact(watch.run), RequestFailed)


@pytest.mark.parametrize("count", [60])
async def test_many_runs_over_all_partitions_end_once_each(valkey_cluster: str, count: int) -> None:
    script: Script = [Head(), Piece(sse(chunk("a"))), Delay(0.01), Piece(GOOD_STREAM)]
    async with script_server([script]) as server, house(valkey_cluster, server.url) as home:
        watches = [await home.send() for _ in range(count)]
        ended = await asyncio.gather(*(frames_of(watch) for watch in watches))
        assert all(frames[-1].kind == END for frames in ended)
        for watch in watches:
            assert isinstance(await home.fact(watch.run), RequestCompleted)
