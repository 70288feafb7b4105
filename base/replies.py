"""What a Redis server answers, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def pairs(reply: Any) -> Sequence[tuple[bytes, bytes]]:
    """Of HGETALL and of an entry's fields: a map in RESP3, a flat list in RESP2."""
    return list(reply.items()) if isinstance(reply, Mapping) else list(zip(reply[::2], reply[1::2], strict=True))


def time_ms(reply: Sequence[Any]) -> int:
    """Of TIME, which answers seconds and microseconds: milliseconds since the epoch."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000
