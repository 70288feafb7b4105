"""The transport against sockets that speak HTTP well, badly and not at all, on both event loops."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509

from providers.errors import BadResponse, Broken, ConnectFailed, IdleTimeout, TotalTimeout, UpstreamFault
from providers.http_answer import Answer
from providers.httptools_transport import HttptoolsTransport
from providers.pool import PoolLimits
from providers.ports import Timeouts, UpstreamResponse
from tests.certificates import certificate
from tests.collector import alive, uncollected
from tests.router_support import CLOCK, until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
OK = HEAD + b"content-length: 2\r\n\r\n{}"
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test once on asyncio's own loop and once on the one that is used."""

    def run(loop: Callable[[], asyncio.AbstractEventLoop], **given: Any) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(test(**given))

    mine, own = inspect.signature(run).parameters["loop"], inspect.signature(test).parameters.values()
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.Signature([mine, *own])  # type: ignore[attr-defined]
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    both: Callable[..., None] = pytest.mark.parametrize("loop", loops, ids=["asyncio", "uvloop"])(run)
    return both


class Engine:
    """Answers its n-th request with the n-th bytes (the last for ever); `ends`: and then hangs up. It keeps the bodies
    it was sent and counts connections, and those that its clients have ended."""

    def __init__(self, *answers: bytes, ends: bool = False) -> None:
        self._answers, self._ends = list(answers), ends
        self.bodies: list[bytes] = []
        self.connections = self.left = 0
        self.url = ""

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.bodies.append(await request_of(reader))
                writer.write(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
                await writer.drain()
                if self._ends:
                    writer.close()
                    return
        self.left += 1
        writer.transport.abort()


async def request_of(reader: Reader) -> bytes:
    """The body of the next request; IncompleteReadError when the client has left."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), b": 0")
    return await reader.readexactly(int(length.split(b": ")[1]))


@asynccontextmanager
async def serving(
    serve: Callable[[Reader, Writer], Coroutine[Any, Any, None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """The URL of a server on a free port."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: Reader, writer: Writer) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    def accept(reader: Reader, writer: Writer) -> None:
        tasks.add(asyncio.create_task(one(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        scheme, port = "https" if tls else "http", server.sockets[0].getsockname()[1]
        yield f"{scheme}://127.0.0.1:{port}/v1/x"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def calling(
    limits: PoolLimits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttptoolsTransport]:
    transport = HttptoolsTransport(CLOCK, limits, tls)
    try:
        yield transport
    finally:
        await transport.close()


async def ask(
    transport: HttptoolsTransport, url: str, body: bytes = b"{}", timeouts: Timeouts | None = None
) -> UpstreamResponse:
    return await transport.open(url, {"content-type": "application/json"}, body, timeouts or Timeouts(), private=True)


async def body_of(response: UpstreamResponse) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (OK, b"{}", True),
        (HEAD + b"content-length: 0\r\n\r\n", b"", True),
        (CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc", True),
        (CHUNKED + b'2;name="value"\r\nab\r\n0\r\nx-trailer: 1\r\n\r\n', b"ab", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"{}", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), b"{}", False),
        (OK.replace(b"HTTP/1.1", b"HTTP/1.0"), b"{}", False),
        (OK + b"HTTP/1.1 200 OK\r\n", b"{}", False),
        (OK + b"surprise", b"{}", False),
    ],
)
@on_both_loops
async def test_every_form_of_a_body_is_read_and_the_connection_used_again_where_it_may_be(
    answer: bytes, body: bytes, kept: bool
) -> None:
    engine = Engine(answer)
    async with serving(engine.serve) as url, calling() as transport:
        assert await body_of(await ask(transport, url)) == body
        assert await (await ask(transport, url)).whole(len(body)) == body
        assert engine.connections == (1 if kept else 2)


@on_both_loops
async def test_a_body_may_end_with_its_connection() -> None:
    async with serving(Engine(HEAD + b"\r\nabc", ends=True).serve) as url, calling() as transport:
        assert await body_of(await ask(transport, url)) == b"abc"


@on_both_loops
async def test_an_answer_that_was_left_is_never_taken_for_whole() -> None:
    async with serving(Engine(HEAD + b"\r\nabc").serve) as url, calling() as transport:
        response = await ask(transport, url)
        assert await response.read() == b"abc"
        response.close()
        with pytest.raises(Broken, match="closed"):
            await response.read()


@on_both_loops
async def test_what_broke_is_gone_without_the_collector() -> None:
    answer = CHUNKED + b"3\r\nabc\r\n"
    async with serving(Engine(answer, ends=True).serve) as url, calling() as transport:
        with uncollected():
            assert await poured(transport, url) is None
            (await ask(transport, url)).close()
            assert alive(Answer) == 0


def sinks() -> Iterator[Callable[[bytes], bool]]:
    """One that takes everything, and one that fails."""
    yield lambda piece: True

    def fails(piece: bytes) -> bool:
        raise BadResponse("this is no answer")

    yield fails


async def poured(transport: HttptoolsTransport, url: str) -> object:
    """What is left, by its weak reference, of an answer that broke off or was not understood; None = nothing."""
    for sink in sinks():
        response = await ask(transport, url)
        with pytest.raises(UpstreamFault):
            await response.pour(sink)
        response.close()
        left = weakref.ref(response)
        del response
        await asyncio.sleep(0)
        if left() is not None:
            return left()
    return None


@pytest.mark.parametrize(
    "answer", [HEAD + b"content-length: 9\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n", CHUNKED + b"9\r\nabc"]
)
@on_both_loops
async def test_what_arrived_before_a_break_is_given_and_then_the_break(answer: bytes) -> None:
    async with serving(Engine(answer, ends=True).serve) as url, calling() as transport:
        response = await ask(transport, url)
        assert await response.read() == b"abc"
        with pytest.raises(Broken, match="before it was complete"):
            await response.read()


@pytest.mark.parametrize(
    ("rest", "ends", "fault"),
    [(b"defghi", False, "longer than 8 bytes"), (b"", True, "before it was complete"), (b"", False, "was silent")],
)
@on_both_loops
async def test_a_whole_body_is_not_given_when_it_is_too_long_breaks_off_or_stands_still(
    rest: bytes, ends: bool, fault: str
) -> None:
    engine = Engine(HEAD + b"content-length: 9\r\n\r\nabc" + rest, ends=ends)
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url, timeouts=Timeouts(idle_s=0.1))
        with pytest.raises(UpstreamFault, match=fault):
            await response.whole(8)
        response.close()


@on_both_loops
async def test_a_whole_body_comes_in_pieces_and_may_be_longer_than_what_is_read_ahead() -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % (3 << 20))
        for sign in (b"a", b"b", b"c"):
            writer.write(sign * (1 << 20))
            await writer.drain()
            await CLOCK.sleep(0.01)

    async with serving(serve) as url, calling() as transport:
        whole = await (await ask(transport, url)).whole(3 << 20)
    assert whole == b"a" * (1 << 20) + b"b" * (1 << 20) + b"c" * (1 << 20)


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        b"HTTP/2 200\r\n\r\n",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n",
        HEAD + b"content-length : 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        HEAD + b"x: " + b"a" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
        HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
@on_both_loops
async def test_what_is_no_plain_answer_is_refused(answer: bytes) -> None:
    engine = Engine(answer)
    async with serving(engine.serve) as url, calling() as transport:
        with pytest.raises(BadResponse):
            await ask(transport, url)
        assert len(engine.bodies) == 1
        await until(lambda: engine.left == 1)


@on_both_loops
async def test_a_bad_chunk_inside_an_answer_is_refused_after_what_was_good() -> None:
    async with serving(Engine(CHUNKED + b"2\r\nab\r\nzz\r\n").serve) as url, calling() as transport:
        response = await ask(transport, url)
        assert await response.read() == b"ab"
        with pytest.raises(BadResponse):
            await response.read()


@on_both_loops
async def test_an_endless_trailer_is_not_kept_in_memory() -> None:
    async with serving(Engine(CHUNKED + b"0\r\nx: " + b"a" * 300_000).serve) as url, calling() as transport:
        with pytest.raises(BadResponse, match="around its body"):
            await body_of(await ask(transport, url))


@on_both_loops
async def test_an_answer_that_comes_before_the_request_was_sent_is_read_and_its_connection_left() -> None:
    connections = 0

    async def serve(reader: Reader, writer: Writer) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.replace(b"200 OK", b"413 Too Large"))
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with serving(serve) as url, calling() as transport:
        for _ in range(2):
            response = await ask(transport, url, b"x" * 32_000_000)
            assert response.status == 413 and await body_of(response) == b"{}"
        assert connections == 2


@on_both_loops
async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_and_the_request_sent_once_more() -> None:
    engine = Engine(OK, b"", OK)

    async def serve(reader: Reader, writer: Writer) -> None:
        if engine.connections == 0:
            engine.connections += 1
            for answer in (OK, b""):
                engine.bodies.append(await request_of(reader))
                writer.write(answer)
            writer.transport.abort()
        else:
            await engine.serve(reader, writer)

    async with serving(serve) as url, calling() as transport:
        assert await body_of(await ask(transport, url, b"1")) == b"{}"
        response = await ask(transport, url, b"2")
        response.close()
    assert engine.bodies == [b"1", b"2", b"2"]


@on_both_loops
async def test_a_request_of_which_anything_was_answered_is_never_sent_again() -> None:
    bodies = []

    async def serve(reader: Reader, writer: Writer) -> None:
        for answer in (OK, b"H"):
            bodies.append(await request_of(reader))
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with serving(serve) as url, calling() as transport:
        await body_of(await ask(transport, url, b"1"))
        with pytest.raises(Broken):
            await ask(transport, url, b"2")
    assert bodies == [b"1", b"2"]


@on_both_loops
async def test_a_new_connection_that_ends_without_an_answer_is_not_tried_again() -> None:
    engine = Engine(b"", ends=True)
    async with serving(engine.serve) as url, calling() as transport:
        with pytest.raises(Broken, match="without an answer"):
            await ask(transport, url)
    assert engine.connections == 1


@on_both_loops
async def test_bytes_that_nobody_asked_for_never_answer_the_next_request() -> None:
    engine = Engine(OK)

    async def serve(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(OK)
        await writer.drain()
        if engine.url:
            await engine.serve(reader, writer)
            return
        engine.url = "the first"
        writer.write(OK.replace(b"{}", b"[]"))
        with suppress(ConnectionError):
            await reader.read()
        engine.left += 1

    async with serving(serve) as url, calling() as transport:
        response = await ask(transport, url)
        assert await body_of(response) == b"{}"
        await until(lambda: engine.left == 1)
        assert await body_of(await ask(transport, url)) == b"{}"


@on_both_loops
async def test_an_engine_is_slowed_down_by_a_reader_that_does_not_read() -> None:
    total, sent = 64, asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % (total << 20))
        for _ in range(total):
            writer.write(bytes(1 << 20))
            await writer.drain()
        sent.set()

    async with serving(serve) as url, calling() as transport:
        response = await ask(transport, url)
        read = len(await response.read())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sent.wait(), 0.5)
        assert read + len(await body_of(response)) == total << 20


@on_both_loops
async def test_a_cancelled_read_loses_nothing() -> None:
    go_on = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(HEAD + b"content-length: 2\r\n\r\na")
        await go_on.wait()
        writer.write(b"b")

    async with serving(serve) as url, calling() as transport:
        response = await ask(transport, url)
        assert await response.read() == b"a"
        reading = asyncio.create_task(response.read())
        await CLOCK.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        go_on.set()
        assert await response.read() == b"b" and await response.read() == b""


@pytest.mark.parametrize("begun", [False, True], ids=["before its head", "inside its body"])
@on_both_loops
async def test_whoever_stops_waiting_leaves_the_engine_at_once(begun: bool) -> None:
    engine = Engine(HEAD + b"content-length: 9\r\n\r\nabc" if begun else b"")
    async with serving(engine.serve) as url, calling() as transport:
        if begun:
            response = await ask(transport, url)
            reading = asyncio.create_task(body_of(response))
            await CLOCK.sleep(0)
            response.close()
            with pytest.raises(Broken):
                await reading
        else:
            asking = asyncio.create_task(ask(transport, url))
            await until(lambda: bool(engine.bodies))
            asking.cancel()
            await asyncio.wait({asking})
        await until(lambda: engine.left == 1)


@on_both_loops
async def test_calls_beyond_the_limit_of_a_host_wait_for_their_turn() -> None:
    async with serving(Engine(OK).serve) as url, calling(PoolLimits(per_host=1)) as transport:
        first = await ask(transport, url)
        with pytest.raises(ConnectFailed, match="in time"):
            await ask(transport, url, timeouts=Timeouts(connect_s=0.05))
        with pytest.raises(TotalTimeout):
            await ask(transport, url, timeouts=Timeouts(total_s=0.05))
        second = asyncio.create_task(ask(transport, url))
        await CLOCK.sleep(0)
        assert await body_of(first) == b"{}"
        assert await body_of(await second) == b"{}"


@on_both_loops
async def test_the_silence_between_pieces_has_a_limit_also_when_pieces_came_late() -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(HEAD + b"content-length: 9\r\n\r\na")
        await reader.read()

    async with serving(serve) as url, calling() as transport:
        response = await ask(transport, url, timeouts=Timeouts(idle_s=0.1))
        assert await response.read() == b"a"
        with pytest.raises(IdleTimeout):
            await response.read()


@on_both_loops
async def test_a_server_that_never_greets_over_tls_is_left_in_time() -> None:
    left = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        with suppress(ConnectionError):
            while await reader.read(4096):
                pass
        left.set()

    async with serving(serve) as url, calling() as transport:
        with pytest.raises(ConnectFailed, match="in time"):
            await ask(transport, url.replace("http:", "https:"), timeouts=Timeouts(connect_s=0.1))
        await asyncio.wait_for(left.wait(), 20)


def own_tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of an engine on the loopback, and of a client that trusts it."""
    cert, key = certificate(folder, [x509.IPAddress(ip_address("127.0.0.1"))])
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)
    return served, ssl.create_default_context(cafile=str(cert))


@on_both_loops
async def test_a_connection_over_tls_is_used_again(tmp_path: Path) -> None:
    engine = Engine(OK)
    served, trust = own_tls(tmp_path)
    async with serving(engine.serve, served) as url, calling(tls=trust) as transport:
        for _ in range(3):
            assert await body_of(await ask(transport, url)) == b"{}"
        assert engine.connections == 1


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\rb", "a\0b"])
@on_both_loops
async def test_a_header_cannot_become_two(value: str) -> None:
    engine = Engine(OK)
    async with serving(engine.serve) as url, calling() as transport:
        with pytest.raises(ConnectFailed, match="cannot be sent") as caught:
            await transport.open(url, {"authorization": value}, b"{}", Timeouts(), private=True)
        assert value not in str(caught.value) and engine.connections == 0


@on_both_loops
async def test_a_name_is_looked_up_and_judged_each_time_it_is_used() -> None:
    engine = Engine(OK)
    async with serving(engine.serve) as url, calling() as transport:
        named = url.replace("127.0.0.1", "localhost")
        assert await body_of(await ask(transport, named)) == b"{}"
        with pytest.raises(ConnectFailed, match="not a public address"):
            await transport.open(named, {}, b"{}", Timeouts())
        with pytest.raises(ConnectFailed, match="no connection"):
            await transport.open("http://nobody.invalid/v1", {}, b"{}", Timeouts(), private=True)
        assert engine.connections == 1


# --- poured into a sink ---------------------------------------------------------------------------------------------


class Told:
    """A server that sends what a test tells it, on its one connection."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader: Reader, writer: Writer) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await request_of(reader)
            writer.write(CHUNKED)
            while said := await self.says.get():
                writer.write(said)
                await writer.drain()
        writer.close()

    def piece(self, data: bytes) -> None:
        self.says.put_nowait(b"%x\r\n%b\r\n" % (len(data), data))


class Glass:
    """A sink that keeps what it is given, and wants more while `wants` says so."""

    def __init__(self, wants: Callable[[bytes], bool] = lambda piece: True) -> None:
        self.got: list[bytes] = []
        self._wants = wants

    def __call__(self, piece: bytes) -> bool:
        self.got.append(piece)
        return self._wants(piece)


def _no_event(piece: bytes) -> bool:
    if b"b" in piece:
        raise BadResponse("no event")
    return True


@on_both_loops
async def test_a_body_is_poured_piece_by_piece_without_waking_who_pours() -> None:
    engine, sink = Told(), Glass()
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url)
        pouring = asyncio.ensure_future(response.pour(sink))
        for data in (b"a", b"bb", b"ccc"):
            engine.piece(data)
            await until(lambda data=data: data in sink.got)  # type: ignore[misc]
        assert not pouring.done()
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await pouring is True and sink.got == [b"a", b"bb", b"ccc"]
        engine.says.put_nowait(b"")


@on_both_loops
async def test_a_sink_that_wants_no_more_is_given_the_rest_when_it_asks_again() -> None:
    engine, sink = Told(), Glass(lambda piece: piece != b"a")
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url)
        engine.piece(b"a")
        assert await response.pour(sink) is False
        engine.piece(b"b")
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await response.pour(sink) is True
        assert sink.got == [b"a", b"b"]
        engine.says.put_nowait(b"")


@on_both_loops
async def test_pouring_that_is_cut_off_loses_nothing() -> None:
    engine, sink = Told(), Glass()
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url)
        first = asyncio.ensure_future(response.pour(sink))
        engine.piece(b"a")
        await until(lambda: sink.got == [b"a"])
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        engine.piece(b"b")
        engine.says.put_nowait(b"0\r\n\r\n")
        assert await response.pour(sink) is True
        assert b"".join(sink.got) == b"ab"
        engine.says.put_nowait(b"")


@on_both_loops
async def test_what_a_sink_raises_comes_out_of_pouring() -> None:
    engine, sink = Told(), Glass(_no_event)
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url)
        pouring = asyncio.ensure_future(response.pour(sink))
        engine.piece(b"a")
        await until(lambda: sink.got == [b"a"])
        engine.piece(b"b")
        with pytest.raises(BadResponse, match="no event"):
            await pouring
        response.close()
        engine.says.put_nowait(b"")


@on_both_loops
async def test_a_break_while_pouring_is_raised_after_what_came_before() -> None:
    engine, sink = Told(), Glass()
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url)
        engine.piece(b"a")
        engine.says.put_nowait(b"")
        with pytest.raises(Broken, match="before it was complete"):
            await response.pour(sink)
        assert sink.got == [b"a"]


@on_both_loops
async def test_silence_while_pouring_counts_from_the_last_piece() -> None:
    engine, sink = Told(), Glass()
    async with serving(engine.serve) as url, calling() as transport:
        response = await ask(transport, url, timeouts=Timeouts(idle_s=0.3))
        pouring = asyncio.ensure_future(response.pour(sink))
        for number in range(6):
            engine.piece(b"%d" % number)
            await until(lambda number=number: len(sink.got) > number)  # type: ignore[misc]
            await CLOCK.sleep(0.06)
        assert not pouring.done()
        with pytest.raises(IdleTimeout):
            await pouring
        assert len(sink.got) == 6
        engine.says.put_nowait(b"")


@on_both_loops
async def test_a_sink_that_has_enough_is_given_nothing_before_it_asks_again() -> None:
    """Pieces may arrive between its word and the turn of whoever pours."""
    sink = Glass(lambda piece: False)
    async with serving(Engine(CHUNKED + b"1\r\na\r\n").serve) as url, calling() as transport:
        response = await ask(transport, url)
        assert await response.pour(sink) is False and sink.got == [b"a"]
        pouring = asyncio.ensure_future(response.pour(sink))
        await CLOCK.sleep(0)
        connection = response._connection  # type: ignore[attr-defined]
        for piece in (b"b", b"c"):
            connection.data_received(b"1\r\n%b\r\n" % piece)
        assert await pouring is False and sink.got == [b"a", b"b"]
        assert await response.read() == b"c"
        response.close()
