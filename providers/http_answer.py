"""The bytes of one HTTP/1.1 answer, read as they arrive, whatever the pieces they come in. Pure; httptools inside.

Understands content-length, chunks (extensions and trailers are dropped), bodies that end with the connection, and any
number of interim answers (1xx) before the answer. What can mean two things is refused: two lengths, a length beside
chunks, a change of the protocol, a coding of the transfer that is not `chunked`. Source: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from providers.errors import BadResponse

#: Bytes that may arrive between two pieces of a body, or before the first: heads, chunk sizes, trailers.
MAX_HEAD = 64 * 1024


class Answer:
    """Feed it what arrives; `pieces` (of `size` bytes together) is what nobody has taken yet.

    touched: anything was fed. has_head: status and headers are there. complete: so is the end of the body. reusable:
    then, whether the connection may carry another request. The callbacks `on_...` are the parser's alone."""

    __slots__ = (
        "_by_end",
        "_interim",
        "_overhead",
        "_parser",
        "complete",
        "has_head",
        "headers",
        "pieces",
        "reusable",
        "size",
        "status",
        "touched",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.touched = self.has_head = self.complete = self.reusable = False
        self.pieces: list[bytes] = []
        self.size = 0
        self._overhead = 0
        self._interim = self._by_end = False
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """BadResponse when this is no answer. What follows a whole answer is no part of it."""
        if self._parser is None:
            self.reusable = False
            return
        self.touched = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.complete:
                raise _unreadable(error) from None
            self.reusable = False
        if self.complete:
            self._parser = None  # it and this object hold each other
        elif self._overhead > MAX_HEAD:
            raise BadResponse(f"the engine's answer has more than {MAX_HEAD} bytes around its body")

    def end(self) -> bool:
        """The connection has ended: whether the answer is complete now."""
        self._parser = None
        if self.has_head and self._by_end:
            self.complete = True
        return self.complete

    def leave(self) -> None:
        """Nobody wants the rest."""
        self._parser = None  # it and this object hold each other

    def take(self) -> bytes:
        """What has arrived of the body and was not taken yet."""
        pieces = self.pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        return taken

    def on_message_begin(self) -> None:
        if self.complete:
            raise BadResponse  # stops the parser: more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # a trailer otherwise
            self.headers.setdefault(name.lower().decode("latin1"), value.decode("latin1"))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise BadResponse
            self._interim = True
            self.headers.clear()
            return
        coding = self.headers.get("transfer-encoding", "").lower()
        if coding not in ("", "chunked", "identity"):
            raise BadResponse
        self._by_end = coding != "chunked" and "content-length" not in self.headers and status not in (204, 304)
        self.status, self.has_head = status, True

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)
        self._overhead = 0

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._interim:
            self._interim = False
            return
        self.complete = True
        self.reusable = self._parser.should_keep_alive()


def _unreadable(error: Exception) -> BadResponse:
    """The parser's name for it; its text may quote the answer."""
    return BadResponse(f"the engine does not speak HTTP/1.1 properly: {type(error).__name__}")
