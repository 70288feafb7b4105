"""A run's frames as single numbered events, so that a reader can begin after any of them. Pure."""

from __future__ import annotations

import re

from ingress.errors import error_body
from schemas.frames import END, ERROR, Frame, decode_failure

_BLOCK = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")


def events_of(frame: Frame, stream: bool) -> list[tuple[int, bytes]]:
    """The (number, data) of each event in a frame. stream: whether the run's answer is a stream; a unary answer and an
    error are one event each."""
    if frame.kind == ERROR:
        return [(frame.sequence, error_body(decode_failure(frame.payload)))]
    if frame.kind == END and not stream:
        return [(frame.sequence, frame.payload)]
    return list(enumerate(_data_of(frame.payload), start=frame.first))


def blocks_of(frame: Frame) -> list[tuple[int, bytes]]:
    """The (number, bytes) of each event in a frame of a stream, as it went out."""
    blocks = [block + b"\n\n" for block in frame.payload.split(b"\n\n") if b"data:" in block]
    return list(enumerate(blocks, start=frame.first))


def numbered(number: int, data: bytes) -> bytes:
    """One event with its number as `id:`; data of several lines stays whole."""
    lines = b"".join(b"data: " + line + b"\n" for line in _LINE.split(data))
    return b"id: %d\n%b\n" % (number, lines)


def _data_of(payload: bytes) -> list[bytes]:
    """The data of every event that has any; comments are none."""
    found = []
    for block in _BLOCK.split(payload):
        lines = [line[5:].removeprefix(b" ") for line in _LINE.split(block) if line.startswith(b"data:")]
        if lines:
            found.append(b"\n".join(lines))
    return found
