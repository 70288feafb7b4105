"""A byte stream cut into whole server-sent events, whatever the pieces it arrives in.

Understands what engines really send: CRLF, LF or CR, `data:` with or without a space, several data lines, comments,
a byte order mark, names and ids (dropped), characters cut in two. No line is decoded: UTF-8 never contains the bytes
of a line end inside a character. Source: WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

from providers.errors import BadResponse

#: Bytes one event may have; a longer one is a BadResponse.
MAX_EVENT = 8 * 1024 * 1024
_PLAIN = 16 * 1024  # longer pieces go the common way
_BOM = b"\xef\xbb\xbf"


class Splitter:
    """Feed it pieces, get the data of each event that became whole. Holds at most one unfinished event."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._held: list[bytes] = []
        self._size = 0
        self._begun = False
        self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event completed by `piece`, in order. BadResponse when one grows over the limit."""
        if not self._held and self._begun and not self._after_cr and _is_plain(piece):
            return [piece[6:-2]]
        if not self._begun:
            held = b"".join((*self._held, piece))
            if len(held) < len(_BOM) and _BOM.startswith(held):
                self._held = [held]
                return []
            self._begun, self._held, piece = True, [], held.removeprefix(_BOM)
        if self._after_cr or b"\r" in piece:
            piece = self._with_line_feeds(piece)
        return self._split(piece)

    def finish(self) -> list[bytes]:
        """What is left when the stream ends without its last blank line: at most one event, perhaps cut short."""
        rest, self._held, self._size = b"".join(self._held), [], 0
        data = event_data(rest)
        return [] if data is None else [data]

    def _with_line_feeds(self, piece: bytes) -> bytes:
        """CRLF and CR become LF at once; an LF that follows in the next piece is the same line end."""
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def _split(self, piece: bytes) -> list[bytes]:
        """Only a line feed can complete an event, so pieces of a long line are joined once."""
        self._held.append(piece)
        if b"\n" not in piece:
            self._grow(len(piece))
            return []
        blocks = (piece if len(self._held) == 1 else b"".join(self._held)).split(b"\n\n")
        rest = blocks.pop()
        self._held, self._size = [rest] if rest else [], 0
        self._grow(len(rest))
        return [data for block in blocks if (data := event_data(block)) is not None]

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > self._max:
            raise BadResponse(f"an event of the stream is longer than {self._max} bytes")


def _is_plain(piece: bytes) -> bool:
    """One whole event of one data line, as most engines send them, each in a piece of its own."""
    size = len(piece)
    return (
        8 < size <= _PLAIN and piece.startswith(b"data: ") and piece.find(b"\n") == size - 2 and piece.endswith(b"\n\n")
    ) and b"\r" not in piece


def event_data(block: bytes) -> bytes | None:
    """The data of one event (lines ended by LF), or None when it carries none but comments, names or blanks."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:] or None
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if any(lines) else None


def event_bytes(data: bytes) -> bytes:
    """One event in the only form we send: a single `data: ` line and a blank one. JSON keeps its meaning, since a
    line feed in it can only stand between tokens."""
    return b"data: %b\n\n" % (data if b"\n" not in data else data.replace(b"\n", b" "))
