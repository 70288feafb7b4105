"""Randomness and identifiers.

A run id is a UUIDv7 (RFC 9562 section 5.7) whose 12 bits `rand_a` carry the partition, so that every process
finds the run's keys from the id alone and the partition is never recomputed.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from typing import Protocol

from base.clock import Clock

MAX_PARTITIONS = 4096  # 12 bits of a UUIDv7
_RUN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Random(Protocol):
    """The house's only source of chance."""

    def bytes(self, count: int, /) -> bytes:
        """`count` unpredictable bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high]; for jitter and choice, never for secrets."""
        ...


class SystemRandom:
    """The operating system's generator for bytes, Python's for jitter."""

    bytes = staticmethod(os.urandom)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)


def mint_run_id(clock: Clock, chance: Random, partition: int) -> str:
    """A new run id of `partition` (0..4095), sortable by its birth in milliseconds."""
    return _run_id(clock.now_ms(), partition, chance.bytes(8))


def derive_run_id(name: str, life: int, window_ms: int, partition: int) -> str:
    """The run id of the `life`-th run (from 0) of something named, in the span of time that began at window_ms, which
    stands where a minted id has its birth. The same for whoever asks. name: must not be guessable."""
    seed = hashlib.sha256(f"{name}/{window_ms}/{life}".encode()).digest()
    return _run_id(window_ms, partition, seed[:8])


def _run_id(at_ms: int, partition: int, tail: bytes) -> str:
    if not 0 <= partition < MAX_PARTITIONS:
        raise ValueError(f"partition {partition} is outside 0..{MAX_PARTITIONS - 1}")
    rest = int.from_bytes(tail, "big") & ((1 << 62) - 1)
    value = (at_ms & ((1 << 48) - 1)) << 80 | 7 << 76 | partition << 64 | 2 << 62 | rest
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_run_id(text: str) -> bool:
    """Whether `text` has the form of a run id; says nothing of its existence."""
    return _RUN.fullmatch(text) is not None


def partition_of(run: str) -> int:
    """The partition written into a run id at birth. ValueError when `run` is not a run id."""
    if not is_run_id(run):
        raise ValueError("not a run id")
    return int(run[15:18], 16)


def short_id(chance: Random, count: int = 8) -> str:
    """A lower-case hexadecimal name of `count` random bytes: consumers, connections, keys."""
    return chance.bytes(count).hex()
