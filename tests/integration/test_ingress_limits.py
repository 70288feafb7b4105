"""Hostile HTTP: what is too large, too slow or no HTTP at all is refused with a 4xx, and the next caller is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from ingress.cycle import Cycle
from ingress.protocol import tune, without_offer
from ingress.serve import CannotListen, IngressServer, bind
from tests.collector import alive, uncollected
from tests.ingress_support import (
    PlayedRun,
    chat_body,
    completion,
    connected,
    gateway,
    head,
    post,
    raw,
    read_answer,
    until,
)
from tests.unit.test_ingress_body import HOSTILE

LIMIT = 64 * 1024


async def answer(run: PlayedRun) -> None:
    await run.answer(completion("Hello"))


async def test_hostile_bodies_are_400_and_harm_nobody() -> None:
    async with gateway(answer) as up:
        for name, body in HOSTILE.items():
            seen = await raw(up.port, post(up.token, body))
            assert seen.status == 400, name
            assert set(seen.error) == {"message", "type", "param", "code", "doc_url"}
        assert len(up.door.runs) == 0
        assert (await raw(up.port, post(up.token, chat_body()))).status == 200


def no_more_than(before: int) -> Callable[[], bool]:
    return lambda: alive(Cycle) <= before


async def test_requests_and_connections_that_are_over_are_gone_without_the_collector() -> None:
    async with gateway(answer) as up:
        for body in (chat_body(), chat_body(stream=True)):
            await raw(up.port, post(up.token, body))
            with uncollected():
                gone = no_more_than(alive(Cycle))
                for _ in range(5):
                    await raw(up.port, post(up.token, body))
                await until(gone)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_uploads_too_much_reads_its_413(chunked: bool) -> None:
    whole = chat_body(padding="x" * 4 * 1024 * 1024)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 65536):
            yield whole[start : start + 65536]

    async with gateway(answer, body_limit=LIMIT) as up, httpx.AsyncClient() as client:
        url, headers = f"{up.url}/v1/chat/completions", {"authorization": f"Bearer {up.token}"}
        seen = await client.post(url, content=pieces() if chunked else whole, headers=headers)
        assert seen.status_code == 413
        assert seen.json()["error"]["code"] == "request_too_large"
        assert (await client.post(url, content=chat_body(), headers=headers)).status_code == 200
        assert len(up.door.runs) == 1


async def test_a_body_just_within_the_limit_is_taken() -> None:
    bare = chat_body(padding="")
    async with gateway(answer, body_limit=LIMIT) as up:
        assert (await raw(up.port, post(up.token, chat_body(padding="x" * (LIMIT - len(bare)))))).status == 200
        assert (await raw(up.port, post(up.token, chat_body(padding="x" * (LIMIT - len(bare) + 1))))).status == 413


async def test_who_asks_first_is_told_413_before_uploading() -> None:
    async with gateway(answer, body_limit=LIMIT) as up:
        request = head("POST", "/v1/chat/completions", up.token, "expect: 100-continue", length=LIMIT + 1)
        assert (await raw(up.port, request)).status == 413


async def test_a_body_that_does_not_arrive_is_408_and_the_socket_closes() -> None:
    async with gateway(answer, body_timeout=0.05) as up, connected(up.port) as (reader, writer):
        writer.write(head("POST", "/v1/chat/completions", up.token, length=100) + b'{"model"')
        seen = await read_answer(reader)
        assert (seen.status, seen.error["code"]) == (408, "request_timeout")
        assert await reader.read() == b""


async def test_an_upload_that_never_ends_is_not_listened_to_for_ever() -> None:
    async with gateway(answer, body_limit=LIMIT, header_timeout=0.2) as up, connected(up.port) as (_, writer):
        writer.write(head("POST", "/v1/chat/completions", up.token, "transfer-encoding: chunked"))
        with pytest.raises(OSError):
            async with asyncio.timeout(10):
                while True:
                    writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "lines",
    [[f"x-{n}: {n}" for n in range(10_000)], ["x-long: " + "x" * 100_000]],
    ids=["10,000 headers", "one of 100 kB"],
)
async def test_a_head_that_is_too_large_is_431(lines: list[str]) -> None:
    async with gateway(answer) as up:
        seen = await raw(up.port, head("GET", "/v1/models", up.token, *lines))
        assert (seen.status, seen.error["code"]) == (431, "request_too_large")
        assert (await raw(up.port, post(up.token, chat_body()))).status == 200


async def test_trailers_are_no_headers_of_the_request_and_no_more_of_them_are_read_than_of_those() -> None:
    body = chat_body()
    begun = head("POST", "/v1/chat/completions", "", "transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n" % (
        len(body),
        body,
    )
    async with gateway(answer) as up:
        told = begun.replace(b"authorization: Bearer ", b"authorization: Bearer " + up.token.encode())
        bad = b"authorization: Bearer nobody\r\nx-headrace-priority: much\r\n\r\n"
        assert (await raw(up.port, told + bad)).status == 200
        good = b"authorization: Bearer " + up.token.encode() + b"\r\n\r\n"
        assert (await raw(up.port, begun + good)).status == 401
        assert (await raw(up.port, told + b"x: " + b"a" * 200_000 + b"\r\n\r\n")).status == 431


@pytest.mark.parametrize("begun", ["", "x", "x: ", "host: test\r\nx: "])
async def test_a_line_of_a_head_that_does_not_end_is_431_before_its_time_is_over(begun: str) -> None:
    async with gateway(answer) as up:
        assert (await raw(up.port, f"GET / HTTP/1.1\r\n{begun}".encode() + b"a" * 200_000)).status == 431


async def test_a_trailer_that_does_not_end_is_431_and_a_body_in_many_small_chunks_is_not() -> None:
    body = chat_body() + b" " * 4000
    async with gateway(answer) as up:
        begun = head("POST", "/v1/chat/completions", up.token, "transfer-encoding: chunked")
        pieces = b"".join(b"1;%b\r\n%b\r\n" % (b"x" * 99, body[at : at + 1]) for at in range(len(body)))
        assert (await raw(up.port, begun + pieces + b"0\r\n\r\n")).status == 200
        whole = b"%x\r\n%b\r\n0\r\nx: " % (len(body), body)
        assert (await raw(up.port, begun + whole + b"a" * 200_000)).status == 431


async def test_a_path_that_is_too_long_is_431() -> None:
    async with gateway() as up:
        assert (await raw(up.port, head("GET", "/" + "a" * 100_000, up.token))).status == 431


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_http_are_a_4xx_of_the_usual_shape(request_bytes: bytes) -> None:
    async with gateway() as up:
        seen = await raw(up.port, request_bytes)
        assert 400 <= seen.status < 500
        assert set(seen.error) == {"message", "type", "param", "code", "doc_url"}


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"POST /v1/chat/com", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
async def test_a_head_that_does_not_arrive_closes_the_socket(begun: bytes) -> None:
    async with gateway(header_timeout=0.1) as up, connected(up.port) as (reader, writer):
        writer.write(begun)
        async with asyncio.timeout(5):
            assert await reader.read() == b""


async def test_a_request_that_offers_another_protocol_is_answered_in_this_one() -> None:
    lines = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
    async with gateway(answer) as up:
        assert (await raw(up.port, head("GET", "/v1/models", up.token, *lines))).status == 200
        assert (await raw(up.port, post(up.token, chat_body(), *lines))).status == 200


async def test_an_offer_behind_as_many_headers_as_there_may_be_is_found() -> None:
    lines = (*(f"x-{number}: 1" for number in range(190)), "connection: Upgrade", "upgrade: h2c")
    async with gateway(answer, header_limit=1300) as up:
        assert (await raw(up.port, post(up.token, chat_body(), *lines))).status == 200


async def test_nothing_is_written_into_an_answer_that_has_begun() -> None:
    async with gateway() as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        await (await up.door.first()).put("data", b"data: {}\n\n")
        begun = await reader.readuntil(b"data: {}\n\n\r\n")
        writer.write(b"this is no HTTP\r\n\r\n")
        assert begun.startswith(b"HTTP/1.1 200") and await reader.read() == b""


async def test_a_request_sent_ahead_of_its_turn_is_left_to_another_connection() -> None:
    async with gateway(answer) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body()) * 3)
        assert (await read_answer(reader)).status == 200
        assert await reader.read() == b""
        assert len(up.door.runs) == 1


async def test_a_connection_serves_one_request_after_another_and_closes_when_it_idles() -> None:
    async with gateway(answer, idle_timeout=1) as up, connected(up.port) as (reader, writer):
        for _ in range(3):
            writer.write(post(up.token, chat_body()))
            assert (await read_answer(reader)).status == 200
        assert await reader.read() == b""


async def test_a_connection_does_not_idle_while_its_request_waits() -> None:
    async with gateway(idle_timeout=1) as up, connected(up.port) as (reader, writer):
        for _ in range(2):
            writer.write(post(up.token, chat_body()))
            run = await up.door.first()
            await asyncio.sleep(1.1)
            await run.answer(completion("Hello"))
            assert (await read_answer(reader)).status == 200
            up.door.runs.clear()


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE", b"uPgRaDe"])
def test_an_offer_is_found_however_it_is_written_and_only_in_the_head(name: bytes) -> None:
    head, rest = b"POST / HTTP/1.1\r\nHost: x\r\n", b": h2c\r\nA: b\r\n\r\n\r\nupgrade: body"
    assert without_offer(head + name + rest, 1000) == head + b"x-upgrade" + rest
    assert without_offer(head + b"A" + rest, 1000) == head + b"A" + rest


async def test_small_writes_are_not_delayed() -> None:
    async with gateway(answer) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body()))
        await read_answer(reader)
        (connection,) = up.server._server.server_state.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        _assert_silence_is_noticed(sock, 60)
    tune(None, 1)


async def test_a_taken_port_says_what_to_change() -> None:
    async with gateway() as up:
        with pytest.raises(CannotListen, match=r"server\.port"):
            bind("127.0.0.1", up.port)
        taken = IngressServer(
            up.app, up.parts.settings.model_copy(update={"port": up.port}), up.parts.health, up.parts.clock
        )
        with pytest.raises(CannotListen):
            await taken.start()


def _assert_silence_is_noticed(sock: socket.socket, seconds: int) -> None:
    """A peer that answers nothing any more is dropped within the limit, whether or not there is something to send."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, step, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + step * count <= seconds
