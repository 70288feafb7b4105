"""What local engines write: one log for each replica, kept over its restarts, in pieces of bounded size.

    small.log, small.log.1, small.log.2      the first replica, newest piece first
    small@2.log ...                          the second

A line of ours stands where a life begins, so that the end of the former one can be found. The engine holds the file
open, therefore a piece that is full is copied and then emptied (the engine appends, so it goes on at the beginning);
what it writes in the instant between the two is lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PIECE_BYTES = 5_000_000
PIECES = 3
_COPY_BYTES = 1_000_000
_MOST_READ = 2 * PIECE_BYTES  # of one piece: an engine may fill a disk with a line that never ends
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a deployment: nothing else becomes a path
_LIFE = "== headrace: engine starts "
_SHOWN = 400  # characters of a last line


def path_of(folder: Path, deployment: str, replica: int) -> Path:
    """The newest piece. ValueError for a name that is none of a deployment."""
    if not NAME.fullmatch(deployment) or replica < 1:
        raise ValueError(f"{deployment!r} is not the name of a deployment")
    return folder / (f"{deployment}.log" if replica == 1 else f"{deployment}@{replica}.log")


def begin_life(path: Path, when: str, piece_bytes: int = PIECE_BYTES, pieces: int = PIECES) -> None:
    """Note that an engine starts now."""
    rotate(path, piece_bytes, pieces)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
        file.write(f"{_LIFE}{when}\n")


def rotate(path: Path, piece_bytes: int = PIECE_BYTES, pieces: int = PIECES) -> None:
    """Set a full piece aside; the oldest one goes."""
    with suppress(FileNotFoundError):
        if path.stat().st_size <= piece_bytes:
            return
        for number in range(pieces - 1, 1, -1):
            with suppress(FileNotFoundError):
                _piece(path, number - 1).replace(_piece(path, number))
        _copy_end(path, _piece(path, 1), 2 * piece_bytes)
        os.truncate(path, 0)


def _copy_end(path: Path, aside: Path, most: int) -> None:
    """The last `most` bytes: an engine can write far more than a piece between two looks."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with path.open("rb") as full, os.fdopen(os.open(aside, flags, 0o600), "wb") as piece:
        full.seek(max(0, os.fstat(full.fileno()).st_size - most))
        while most > 0 and (data := full.read(min(most, _COPY_BYTES))):
            piece.write(data)
            most -= len(data)


def tail(path: Path, lines: int, *, previous: bool = False) -> list[str] | None:
    """The last lines, of the life before the present one when asked for; None when there is no log, or was no such
    life."""
    if not path.exists():
        return None
    found: list[str] = []
    lives = 0
    for line in _backwards(path):
        begins = line.startswith(_LIFE)
        if not previous or lives == 1:
            found.append(line)
        lives += begins
        if len(found) == lines or (previous and lives == 2):
            break
    return None if previous and not found else found[::-1]


def last_line(path: Path) -> str:
    """The last thing an engine said, shortened; "" when it said nothing."""
    for line in _backwards(path):
        if line.strip():
            return "" if line.startswith(_LIFE) else line.strip()[:_SHOWN]
    return ""


def _piece(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def _end_of(path: Path) -> bytes:
    """What is read of a piece: all of one that is within bounds."""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_READ))
        return file.read(_MOST_READ)


def _backwards(path: Path) -> Iterator[str]:
    """All lines, the newest first, piece by piece; a line that was cut by a rotation is two."""
    for number in range(PIECES):
        try:
            text = _end_of(_piece(path, number)).decode("utf-8", "replace")
        except OSError:
            continue
        yield from reversed(text.splitlines())
