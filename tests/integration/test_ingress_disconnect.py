"""The client leaves, stalls, or the door goes: what the run hears of it."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys

import pytest

from tests.ingress_support import (
    PlayedRun,
    chat_body,
    chunk,
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

_SO_ATTACH_FILTER = 26  # socket(7); Python's module does not name it


def signed_off(run: PlayedRun) -> bool:
    return run.left == ["left"] and run.watching == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_byte_is_heard(stream: bool) -> None:
    async with gateway() as up:
        async with connected(up.port) as (_, writer):
            writer.write(post(up.token, chat_body(stream=stream)))
            run = await up.door.first()
            assert run.left == []
        await until(lambda: signed_off(run))
        assert not up.parts.stalls.open


async def test_leaving_after_commit_is_heard() -> None:
    async with gateway(commit_after=0.01) as up:
        async with connected(up.port) as (reader, writer):
            writer.write(post(up.token, chat_body(stream=True)))
            await read_head(reader)
        run = await up.door.first()
        await until(lambda: signed_off(run))


async def test_leaving_in_mid_stream_is_heard() -> None:
    async with gateway() as up:
        async with connected(up.port) as (reader, writer):
            writer.write(post(up.token, chat_body(stream=True)))
            run = await up.door.first()
            await run.data("a")
            await read_head(reader)
            assert await read_chunk(reader) == chunk("a")
        await until(lambda: signed_off(run))


async def test_leaving_is_heard_though_another_request_was_sent_ahead() -> None:
    async with gateway() as up:
        async with connected(up.port) as (reader, writer):
            writer.write(post(up.token, chat_body(stream=True)) * 2)
            run = await up.door.first()
            await run.data("a")
            await read_head(reader)
        await until(lambda: signed_off(run))


def vanish(writer: asyncio.StreamWriter) -> None:
    """From now on this end of the connection hears nothing, so its kernel acknowledges nothing: as after a loss of
    power, or of the network. (A classic BPF program of one instruction, `return 0`: keep no byte of any packet.)"""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    filtered = struct.pack("HL", 1, ctypes.addressof(program))
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux'")
@pytest.mark.parametrize("phase", ["before the first byte", "while nothing is sent", "while something is sent"])
async def test_a_client_that_vanishes_without_a_word_has_left_within_the_stall_limit(phase: str) -> None:
    async with gateway(stall_limit=4) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        if phase != "before the first byte":
            await run.data("a")
            await read_head(reader)
            assert await read_chunk(reader) == chunk("a")
        vanish(writer)
        if phase == "while something is sent":
            await run.data("b")
        await until(lambda: signed_off(run))
        assert not up.parts.stalls.open


async def test_leaving_is_heard_behind_a_body_that_filled_every_buffer() -> None:
    async with gateway() as up:
        async with connected(up.port) as (_, writer):
            writer.write(post(up.token, chat_body(padding="x" * 500_000)))
            run = await up.door.first()
        await until(lambda: signed_off(run))


async def test_a_reset_is_heard_like_a_farewell() -> None:
    async with gateway() as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        await run.data("a")
        await read_head(reader)
        writer.transport.abort()
        await until(lambda: signed_off(run))


async def test_leaving_while_the_run_is_being_accepted_is_heard() -> None:
    async with gateway() as up:
        going = asyncio.Event()
        plain = up.door.accept

        async def slow(new: object) -> object:
            await going.wait()
            return await plain(new)  # type: ignore[arg-type]

        up.door.accept = slow  # type: ignore[assignment,method-assign]
        async with connected(up.port) as (_, writer):
            writer.write(post(up.token, chat_body()))
            await writer.drain()
        going.set()
        run = await up.door.first()
        await until(lambda: signed_off(run))


async def test_leaving_in_mid_upload_starts_nothing() -> None:
    async with gateway() as up:
        async with connected(up.port) as (_, writer):
            writer.write(head("POST", "/v1/chat/completions", up.token, length=100) + b'{"model"')
            await writer.drain()
        await until(lambda: not up.server._server.server_state.connections)
        assert not up.door.runs


async def test_leaving_a_replay_is_heard() -> None:
    async with gateway() as up:
        writer_task = asyncio.create_task(raw(up.port, post(up.token, chat_body(stream=True))))
        run = await up.door.first()
        await run.data("a")
        async with connected(up.port) as (reader, writer):
            writer.write(head("GET", f"/v1/streams/{run.run}", up.token))
            await read_head(reader)
            await read_chunk(reader)
            assert run.watching == 2
        await until(lambda: run.left == ["left"] and run.watching == 1)
        await run.done()
        assert (await writer_task).clean


async def test_an_answered_run_hears_of_nobody_leaving() -> None:
    async with gateway() as up:
        async with connected(up.port) as (reader, writer):
            writer.write(post(up.token, chat_body(stream=True)))
            run = await up.door.first()
            await run.data("a")
            await run.done()
            await read_answer(reader)
        await until(lambda: run.watching == 0)
        assert run.left == []


async def test_a_reader_that_takes_nothing_is_held_back_and_then_cut() -> None:
    async with gateway(stall_limit=0.5) as up:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", up.port))
        with sock:
            await asyncio.get_running_loop().sock_sendall(sock, post(up.token, chat_body(stream=True)))
            run = await up.door.first()
            for _ in range(400):
                await run.data("x" * 16_384)
            (exchange,) = up.parts.stalls.open
            await until(lambda: exchange.sending)
            assert run.handed < 200  # sending waits for the reader: what cannot be sent is not fetched
            await until(lambda: signed_off(run))


async def test_a_slow_reader_that_takes_something_is_not_cut() -> None:
    async with gateway(stall_limit=0.5) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        await run.data("a")
        await read_head(reader)
        for text in "bcdef":
            await asyncio.sleep(0.2)
            await run.data(text)
        await run.done()
        while await read_chunk(reader):
            pass
        assert run.left == []


async def test_stopping_lets_open_answers_finish() -> None:
    async with gateway(drain_limit=10) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        await run.data("a")
        await read_head(reader)
        stopping = asyncio.create_task(up.server.stop())
        await until(lambda: up.parts.health.draining)
        with pytest.raises(OSError):
            async with asyncio.timeout(5):
                while True:
                    async with connected(up.port):
                        pass
        await run.data("b")
        await run.done()
        body = b""
        while piece := await read_chunk(reader):
            body += piece
        assert body.endswith(b"[DONE]\n\n")
        await stopping
        assert run.left == []


async def test_an_answer_that_outlasts_the_drain_is_cut_and_its_run_left_alone() -> None:
    async with gateway(drain_limit=1) as up, connected(up.port) as (reader, writer):
        writer.write(post(up.token, chat_body(stream=True)))
        run = await up.door.first()
        await run.data("a")
        await read_head(reader)
        await up.server.stop()
        assert await read_chunk(reader) == chunk("a")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await read_chunk(reader)
        assert run.left == []
        assert run.watching == 0


async def test_a_draining_door_refuses_new_work_and_says_so() -> None:
    async with gateway() as up:
        up.parts.health.draining = True
        answer = await raw(up.port, post(up.token, chat_body()))
        assert (answer.status, answer.error["code"]) == (503, "server_is_overloaded")
        for again in (post(up.token, chat_body()), head("GET", "/v1/streams/some-run", up.token)):
            waits = {int((await raw(up.port, again)).headers["retry-after-ms"]) for _ in range(5)}
            assert len(waits) > 1 and all(1000 <= wait <= 2000 for wait in waits), "all would come back together"
        assert (await raw(up.port, head("GET", "/readyz", None))).status == 503
        assert (await raw(up.port, head("GET", "/livez", None))).status == 200
        assert not up.door.runs
