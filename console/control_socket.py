"""How commands reach a running supervisor: DIR/control.sock, one JSON line asked, one JSON line answered.

The supervisor has no loop and no thread, so this side only offers descriptors for its select and never blocks. Only the
owner of the data folder can connect (folder 0700, socket 0600). Paths of sockets hold 107 bytes, paths of folders many
more: both sides go through /proc/self/fd.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "control.sock"
MOST_BYTES = 65_536
_MOST_WAITING = 64  # callers that have not asked yet; one more costs the oldest its place
_ANSWER_S = 10
_PATIENCE = struct.pack("@ll", _ANSWER_S, 0)  # struct timeval

Message = dict[str, Any]
Answer = Callable[[Message], Message]


class ControlError(Exception):
    """Nobody answers there, or the answer is a refusal; one line for the user."""


class ControlSocket:
    """The supervisor's end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._path.unlink(missing_ok=True)  # a killed run left it
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_path(folder) as path:
            self._listener.bind(path)
        self._path.chmod(0o600)
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._waiting: dict[socket.socket, bytes] = {}

    @property
    def descriptors(self) -> list[int]:
        """What to select on for reading, and what a forked child has to close."""
        return [self._listener.fileno(), *(connection.fileno() for connection in self._waiting)]

    def serve(self, answer: Answer) -> None:
        """Take who came, answer whoever has asked. Never blocks."""
        with contextlib.suppress(OSError):  # nobody is left, or no descriptor: who waits is heard later
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._waiting[connection] = b""
                if len(self._waiting) > _MOST_WAITING:
                    self._drop(next(iter(self._waiting)))
        for connection in list(self._waiting):
            with contextlib.suppress(BlockingIOError):
                self._hear(connection, answer)

    def close(self) -> None:
        """Nobody is heard any more."""
        for sock in (self._listener, *self._waiting):
            sock.close()
        self._path.unlink(missing_ok=True)

    def _drop(self, connection: socket.socket) -> None:
        del self._waiting[connection]
        connection.close()

    def _hear(self, connection: socket.socket, answer: Answer) -> None:
        try:
            piece = connection.recv(MOST_BYTES)
        except ConnectionError:
            piece = b""
        asked = self._waiting[connection] + piece
        if piece and b"\n" not in piece and len(asked) < MOST_BYTES:
            self._waiting[connection] = asked
            return
        del self._waiting[connection]
        with connection, contextlib.suppress(OSError):
            if b"\n" in asked:
                connection.sendall(json.dumps(_answered(asked, answer)).encode() + b"\n")


def _answered(asked: bytes, answer: Answer) -> Message:
    try:
        message = json.loads(asked.partition(b"\n")[0])
    except (ValueError, RecursionError):
        message = None
    return answer(message) if isinstance(message, dict) else {"error": "that is no JSON object"}


def ask(folder: Path, message: Mapping[str, Any]) -> Message:
    """The supervisor's answer. ControlError when none runs on this folder, or in its words when it refuses."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, _short_path(folder) as path:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
            sock.connect(path)  # without a timeout of Python's: with one, a full queue of callers is an error at once
            sock.settimeout(_ANSWER_S)
            sock.sendall(json.dumps(message).encode() + b"\n")
            with sock.makefile("rb") as answers:
                found = json.loads(answers.readline(MOST_BYTES))
    except (OSError, ValueError):
        raise ControlError(
            f"no supervisor answers in {folder}: this works where `headrace up` runs; elsewhere start and stop "
            "processes with `headrace start ROOM` and `headrace drain CONSUMER`"
        ) from None
    if "error" in found:
        raise ControlError(str(found["error"]))
    return dict(found)


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path by a descriptor of its folder, however deep that lies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)
