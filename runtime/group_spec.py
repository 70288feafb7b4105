"""One consumer group as values: what streams.yaml says of it, what its engine counted, how much one read may bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.envelope import Publishers

_BLOCK_MS = 5000  # one XREADGROUP waits this long
_CROWDED_MS = 200  # one XREADGROUP waits this long when there are more streams than free slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One group on one kind of stream, as streams.yaml declares it. publishers: who may say what on it;
    `script` = unsigned.

    single: every entry is a task of its own (long work); else the handler gets what was read as one batch.
    marked: a field; entries without it are acknowledged unopened.
    pace_ms: pause after a read that brought something, so that a group which nobody waits for works in larger batches.
    """

    stream: str
    group: str
    publishers: Publishers
    batch: int = 64
    concurrency: int = 64
    idle_ms: int = 15000
    max_starts: int = 3
    single: bool = False
    pace_ms: int = 0
    marked: str = ""

    def with_concurrency(self, most: int) -> Spec:
        """The same group taking at most `most` entries at once."""
        return replace(self, concurrency=most, batch=min(self.batch, most))


@dataclass(slots=True)
class Counters:
    """What the engine did, for metrics."""

    handled: int = 0
    failed: int = 0
    redelivered: int = 0
    dead: int = 0
    lost: int = 0
    repaired: int = 0
    missing: int = 0


def share(streams: Sequence[str], count: int, turn: int) -> tuple[Sequence[str], int, int]:
    """(streams to read now, entries of each, ms to wait) so that one read never brings more than `count` entries.

    COUNT holds for each stream: with more streams than free slots some are read in this turn, others in the next."""
    if len(streams) <= count:
        return streams, count // max(1, len(streams)), _BLOCK_MS
    start = turn * count % len(streams)
    return [*streams[start:], *streams[:start]][:count], 1, _CROWDED_MS
