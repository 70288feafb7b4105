"""Time stamps written as letters, so that a token can carry the moment at which the engine wrote it.

Letters only: a scanner for phone numbers or cards sees no digit. The clock is CLOCK_MONOTONIC in nanoseconds, which
all processes of one machine share, so the load generator gets the one-way relay time of a token by subtraction.
"""

import re
from time import monotonic_ns

_HEX, _LETTERS = b"0123456789abcdef", b"abcdefghijklmnop"
_TO_LETTERS = bytes.maketrans(_HEX, _LETTERS)
_TO_HEX = bytes.maketrans(_LETTERS, _HEX)

#: Letters in a stamp: 64 bits, four a letter.
STAMP_LETTERS = 16
#: What stands before a stamp in a token.
TOKEN_HEAD = b" x"
#: One token of the mock engine: a blank, an x, the stamp. The group is the stamp.
TOKEN = re.compile(rb" x([a-p]{16})")


def encode(ns: int) -> bytes:
    """16 letters a..p for a clock value in nanoseconds (0 <= ns < 2**64)."""
    return (b"%016x" % ns).translate(_TO_LETTERS)


def decode(letters: bytes) -> int:
    """The nanoseconds in 16 letters; ValueError when they are no stamp."""
    if len(letters) != STAMP_LETTERS:
        raise ValueError(f"a stamp has {STAMP_LETTERS} letters, not {len(letters)}")
    return int(letters.translate(_TO_HEX), 16)


def token() -> bytes:
    """One token stamped with this moment."""
    return TOKEN_HEAD + encode(monotonic_ns())
