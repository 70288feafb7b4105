"""The supervisor's socket: one line asked, one line answered, whoever it is, however deep its folder lies."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from console.control_socket import MOST_BYTES, NAME, ControlError, ControlSocket, ask


def answer(message: dict[str, Any]) -> dict[str, Any]:
    return {"error": "never"} if message.get("do") == "refuse" else {"heard": message}


@contextmanager
def serving(folder: Path) -> Iterator[ControlSocket]:
    """A select loop in a thread, as the supervisor has it."""
    desk, over = ControlSocket(folder), threading.Event()

    def loop() -> None:
        while not over.is_set():
            select.select(desk.descriptors, [], [], 0.05)
            desk.serve(answer)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield desk
    finally:
        over.set()
        thread.join(10)
        desk.close()


def test_what_is_asked_is_answered_in_a_folder_deeper_than_a_socket_path(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / ("deeper" * 10)
    folder.mkdir(parents=True)
    with serving(folder):
        assert ask(folder, {"do": "status"}) == {"heard": {"do": "status"}}
        assert ask(folder, {"do": "ä" * 300})["heard"]["do"] == "ä" * 300
        assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert not (folder / NAME).exists()


def test_a_refusal_is_an_error_in_the_supervisors_words(tmp_path: Path) -> None:
    with serving(tmp_path), pytest.raises(ControlError, match="never"):
        ask(tmp_path, {"do": "refuse"})


@pytest.mark.parametrize("place", [".", "missing"])
def test_without_a_supervisor_the_other_ways_are_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ControlError, match="headrace start ROOM"):
        ask(tmp_path / place, {"do": "status"})


def test_a_socket_that_a_killed_supervisor_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    with pytest.raises(ControlError):
        ask(tmp_path, {"do": "status"})
    with serving(tmp_path):
        assert "heard" in ask(tmp_path, {"do": "status"})


def speak(folder: Path, *pieces: bytes) -> bytes:
    """Whatever comes back for these pieces."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        here = os.open(folder, os.O_RDONLY)
        sock.connect(f"/proc/self/fd/{here}/{NAME}")
        os.close(here)
        for piece in pieces:
            sock.sendall(piece)
        return sock.makefile("rb").readline()


def test_a_line_may_come_in_pieces_and_nonsense_gets_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path):
        assert speak(tmp_path, b'{"do":', b' "status"}', b"\n") == b'{"heard": {"do": "status"}}\n'
        assert b"no JSON object" in speak(tmp_path, b"hello\n")
        assert b"no JSON object" in speak(tmp_path, b"[1]\n")


@pytest.mark.parametrize("asked", [b"[" * 60_000, b'{"a":' * 12_000, b"\xff\xfe", b"null"])
def test_no_line_ends_the_supervisor(tmp_path: Path, asked: bytes) -> None:
    with serving(tmp_path):
        assert b"no JSON object" in speak(tmp_path, asked + b"\n")
        assert "heard" in ask(tmp_path, {"do": "status"})


def test_callers_without_number_cost_the_oldest_their_place(tmp_path: Path) -> None:
    """More descriptors than select(2) can watch would end the supervisor."""
    with serving(tmp_path) as desk, ExitStack() as callers:
        for _ in range(200):
            sock = callers.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(tmp_path / NAME))
        assert "heard" in ask(tmp_path, {"do": "status"})
        assert len(desk.descriptors) <= 66


def test_who_finds_the_queue_of_callers_full_waits(tmp_path: Path) -> None:
    desk = ControlSocket(tmp_path)
    with closing(desk), ExitStack() as callers, ThreadPoolExecutor(1) as pool:
        with pytest.raises(BlockingIOError):
            for _ in range(200):
                sock = callers.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(str(tmp_path / NAME))
        asked = pool.submit(ask, tmp_path, {"do": "status"})
        wait([asked], 0.1)  # before the desk is there to take anybody
        while not asked.done():
            desk.serve(answer)
        assert "heard" in asked.result()


def test_a_caller_that_says_nothing_or_never_ends_keeps_nobody_waiting(tmp_path: Path) -> None:
    with serving(tmp_path), socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / NAME))
        assert "heard" in ask(tmp_path, {"do": "status"})
        assert speak(tmp_path, b"x" * (MOST_BYTES - 1), b"x") == b""
