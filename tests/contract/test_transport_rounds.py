"""Answers that are read in rounds: the same bytes, faults and limits, fewer turns; on both event loops."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from providers.connection import READ_AHEAD
from providers.errors import BadResponse, Broken, IdleTimeout
from providers.ports import Timeouts, UpstreamResponse
from providers.rounds import Rounds
from tests.contract.test_transport_wire import (
    CHUNKED,
    OK,
    Engine,
    Glass,
    Told,
    ask,
    calling,
    on_both_loops,
    own_tls,
    serving,
)
from tests.router_support import CLOCK, until

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")


def every() -> float:
    """How often the sinks of these tests want something."""
    return 0.02


@asynccontextmanager
async def flowing(engine: Told, sink: Glass) -> AsyncIterator[tuple[UpstreamResponse, asyncio.Future[bool]]]:
    """An answer that is poured in rounds, after as many pieces of one letter as that takes."""
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url, timeouts=Timeouts(idle_s=0.3))
        pouring = asyncio.ensure_future(response.pour(sink, every))
        await join(engine, response, pouring)
        try:
            yield response, pouring
        finally:
            engine.says.put_nowait(b"")


async def join(engine: Told, response: UpstreamResponse, pouring: asyncio.Future[bool]) -> None:
    while not in_rounds(response):
        assert not pouring.done()
        engine.piece(b"-")
        await CLOCK.sleep(0.001)


async def comes_without_rounds(
    pace: Callable[[], float], served: ssl.SSLContext | None = None, trust: ssl.SSLContext | None = None
) -> None:
    """A fast answer is poured whole, and never in rounds."""
    engine, sink = Told(), Glass()
    async with serving(engine.serve, served) as url, calling(tls=trust) as transport:
        response = await ask(transport, url)
        pouring = asyncio.ensure_future(response.pour(sink, pace))
        for number in range(40):
            engine.piece(b"%02d" % number)
            await CLOCK.sleep(0.001)
        await heard(sink, b"39")
        assert not in_rounds(response)
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await pouring is True
        assert text_of(sink) == b"".join(b"%02d" % number for number in range(40))
        engine.says.put_nowait(b"")


def in_rounds(response: UpstreamResponse) -> bool:
    return bool(response._connection._rounds._members)  # type: ignore[attr-defined]


def text_of(sink: Glass) -> bytes:
    return b"".join(sink.got).lstrip(b"-")


async def heard(sink: Glass, end: bytes) -> None:
    await until(lambda: b"".join(sink.got).endswith(end))


@on_both_loops
async def test_a_fast_answer_is_taken_once_a_round() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (response, pouring):
        told = len(sink.got)
        for number in range(100):
            engine.piece(b"%02d" % number)
            await CLOCK.sleep(0.001)
        await heard(sink, b"99")
        assert text_of(sink) == b"".join(b"%02d" % number for number in range(100))
        assert len(sink.got) - told < 50 and in_rounds(response)
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await pouring is True and not in_rounds(response)


@on_both_loops
async def test_an_answer_that_becomes_slow_leaves_the_rounds() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (response, _):
        while in_rounds(response):
            engine.piece(b"-")
            await CLOCK.sleep(0.05)
        engine.piece(b"last")
        await heard(sink, b"last")


@on_both_loops
async def test_a_connection_that_was_read_in_rounds_carries_another_call() -> None:
    body = b"".join(b"1\r\n%c\r\n" % (97 + number % 26) for number in range(40))
    engine = Engine(CHUNKED + body + b"0\r\n\r\n")
    async with serving(engine.serve) as url, calling() as transport:
        for _ in range(3):
            sink = Glass()
            response = await ask(transport, url)
            assert await response.pour(sink, every) is True
            assert len(b"".join(sink.got)) == 40
        assert engine.connections == 1


@on_both_loops
async def test_a_break_in_the_rounds_is_raised_after_what_came_before() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (_, pouring):
        engine.piece(b"a")
        engine.says.put_nowait(b"")
        with pytest.raises(Broken, match="before it was complete"):
            await pouring
        assert text_of(sink) == b"a"


@on_both_loops
async def test_what_is_no_answer_is_refused_in_the_rounds_too() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (response, pouring):
        engine.says.put_nowait(b"no size\r\n")
        with pytest.raises(BadResponse):
            await pouring
        assert not in_rounds(response)


@on_both_loops
async def test_silence_in_the_rounds_counts_from_the_last_piece() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (response, pouring):
        with pytest.raises(IdleTimeout):
            await pouring
        assert not in_rounds(response)


@on_both_loops
async def test_a_sink_that_has_enough_in_a_round_is_given_the_rest_when_it_asks_again() -> None:
    engine, sink = Told(), Glass(lambda piece: b"a" not in piece)
    async with flowing(engine, sink) as (response, pouring):
        engine.piece(b"a")
        assert await pouring is False
        engine.piece(b"b")
        await CLOCK.sleep(0.05)
        assert text_of(sink) == b"a"
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await response.pour(sink, every) is True
        assert text_of(sink) == b"ab"


@on_both_loops
async def test_bytes_behind_an_answer_that_was_read_in_rounds_never_answer_the_next_request() -> None:
    engine, sink = Told(), Glass(lambda piece: b"done" not in piece)
    async with flowing(engine, sink) as (response, pouring):
        engine.says.put_nowait(b"4\r\ndone\r\n0\r\n\r\n")
        assert await pouring is False
        assert not in_rounds(response)
        engine.says.put_nowait(OK)
        await CLOCK.sleep(0.01)
        await response.drain(0.1)
        assert response._connection.answer is None and not response._connection.idle  # type: ignore[attr-defined]


@on_both_loops
async def test_who_pours_without_a_pace_again_is_given_each_piece() -> None:
    engine, sink = Told(), Glass(lambda piece: b"a" not in piece)
    async with flowing(engine, sink) as (response, pouring):
        engine.piece(b"a")
        assert await pouring is False
        again = asyncio.ensure_future(response.pour(sink))
        for _ in range(20):
            engine.piece(b"-")
            await CLOCK.sleep(0.001)
        assert not in_rounds(response) and not again.done()
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await again is True


@on_both_loops
async def test_an_answer_is_read_as_it_comes_where_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> select.epoll:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("providers.rounds.select.epoll", full)
    await comes_without_rounds(every)


@on_both_loops
async def test_a_pace_of_nothing_has_no_rounds() -> None:
    await comes_without_rounds(lambda: 0.0)


@on_both_loops
async def test_a_flood_does_not_wait_for_rounds() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (_, pouring):
        for _ in range(100):
            engine.piece(bytes(64 * 1024))
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await pouring is True
        assert len(text_of(sink)) == 100 * 64 * 1024


@on_both_loops
async def test_silence_of_all_ends_the_rounds() -> None:
    engine, sink = Told(), Glass()
    async with flowing(engine, sink) as (response, _):
        await until(lambda: not in_rounds(response))
        engine.piece(b"last")
        await heard(sink, b"last")


# --- many ------------------------------------------------------------------------------------------------------------


class Reader(asyncio.Protocol):
    """One end of a socket pair, as a member."""

    def __init__(self, rounds: Rounds) -> None:
        self.got: list[bytes] = []
        self._rounds = rounds
        self.fd: int | None = None

    def join(self, transport: asyncio.BaseTransport) -> None:
        self.fd = self._rounds.join(self, transport, every)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        if data == b"fail":
            raise RuntimeError("a defect")

    def leave(self) -> None:
        if self.fd is not None:
            fd, self.fd = self.fd, None
            self._rounds.leave(fd)

    cut = leave


@on_both_loops
async def test_more_than_one_turn_reads_are_read_once_a_round_and_a_defect_of_one_harms_no_other() -> None:
    loop, rounds = asyncio.get_running_loop(), Rounds()
    pairs = [socket.socketpair() for _ in range(150)]
    made = [await loop.create_connection(lambda: Reader(rounds), sock=here) for here, _ in pairs]
    readers = [reader for _, reader in made]
    await CLOCK.sleep(0.01)
    for transport, reader in made:
        reader.join(transport)
    for number, (_, there) in enumerate(pairs):
        there.send(b"fail" if number == 7 else b"one")
    await until(lambda: all(reader.got for reader in readers))
    for _, there in pairs:
        there.send(b"two")
        there.send(b"three")
    await until(lambda: all(len(reader.got) > 1 for reader in readers))
    assert [reader.fd is None for reader in readers] == [number == 7 for number in range(150)]
    assert all(reader.got == [b"one", b"twothree"] for number, reader in enumerate(readers) if number != 7)
    rounds.close()
    assert all(reader.fd is None for reader in readers)
    pairs[0][1].send(b"by the loop")
    await until(lambda: readers[0].got[-1] == b"by the loop")
    for (transport, _), (_, there) in zip(made, pairs, strict=True):
        transport.close()
        there.close()
    await CLOCK.sleep(0.01)


@on_both_loops
async def test_nobody_reads_far_ahead_of_a_sink_in_the_rounds() -> None:
    engine, sink = Told(), Glass(lambda piece: b"a" not in piece)
    async with flowing(engine, sink) as (response, pouring):
        engine.piece(b"a")
        assert await pouring is False
        for _ in range(40):
            engine.piece(bytes(64 * 1024))
        await CLOCK.sleep(0.2)
        assert response._answer.size < 4 * READ_AHEAD  # type: ignore[attr-defined]
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await response.pour(sink, every) is True
        assert len(text_of(sink)) == 1 + 40 * 64 * 1024


@on_both_loops
async def test_answers_over_tls_are_read_as_they_come(tmp_path: Path) -> None:
    await comes_without_rounds(every, *own_tls(tmp_path))


@on_both_loops
async def test_closing_the_transport_ends_what_is_read_in_rounds() -> None:
    engine, sink = Told(), Glass()
    async with serving(engine.serve) as url:
        async with calling() as transport:
            response = await ask(transport, url)
            pouring = asyncio.ensure_future(response.pour(sink, every))
            await join(engine, response, pouring)
        with pytest.raises(Broken):
            await pouring
        assert not in_rounds(response)
        engine.says.put_nowait(b"")
