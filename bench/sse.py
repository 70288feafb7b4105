"""Counting what arrives on a server-sent event stream, whichever way the network cuts it.

No JSON is parsed: the counter must cost less than the gateway it measures. It works by whole lines, so LF and CRLF,
events cut at any byte and several events in one piece all count the same.
"""

from bench.stamps import TOKEN


class SseCounter:
    """Events, stamped tokens, the end mark and error events of one stream."""

    __slots__ = ("_carry", "done", "error", "events", "tokens")

    def __init__(self) -> None:
        self._carry = b""
        #: `data:` lines so far, the end mark included.
        self.events = 0
        #: Stamped tokens so far.
        self.tokens = 0
        #: Whether `data: [DONE]` was seen.
        self.done = False
        #: The first error event, as sent; empty when there was none.
        self.error = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; returns the stamps of the tokens completed by them, in order."""
        block = self._carry + piece if self._carry else piece
        cut = block.rfind(b"\n") + 1
        self._carry = block[cut:]
        if not cut:
            return []
        if self._carry:
            block = block[:cut]
        self.events += block.count(b"\ndata:") + block.startswith(b"data:")
        stamps = TOKEN.findall(block)
        self.tokens += len(stamps)
        if b"[DONE]" in block:
            self.done = self.done or _has_line(block, (b"data: [DONE]", b"data:[DONE]"))
        if b'"error"' in block and not self.error:
            self.error = _error_line(block)
        return stamps


def _has_line(block: bytes, wanted: tuple[bytes, ...]) -> bool:
    return any(line.rstrip() in wanted for line in block.splitlines())


def _error_line(block: bytes) -> bytes:
    """The first event whose object begins with the key `error`, or nothing."""
    for line in block.splitlines():
        if line.startswith(b"data:") and line[5:].replace(b" ", b"").startswith(b'{"error"'):
            return line
    return b""
