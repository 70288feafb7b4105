"""What a strategy is told: one small value for each candidate, and what makes this choice differ from the last one."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf

import msgspec

from base.ewma import DECAY_S

_PER_S = 1 / DECAY_S


@dataclass(slots=True)
class Candidate:
    """An endpoint with a free slot. Strategies only read it.

    weight: >= 1, its share. in_use: requests of this process there now. ttft_s, peak_s: the averages of the time to
    the first byte (base.ewma) as they were at seen_at, 0 = nothing known. price: micros per 1,000,000 tokens, 0 = not
    known. waiting_since: when the oldest call that has no first byte yet was sent, inf = there is none. Times are
    monotonic seconds of this process."""

    weight: int = 1
    in_use: int = 0
    ttft_s: float = 0.0
    peak_s: float = 0.0
    seen_at: float = 0.0
    price: int = 0
    waiting_since: float = inf

    def ttft(self, now: float) -> float:
        """The time to the first byte as expected now."""
        return expected(self.ttft_s, self.seen_at, self.waiting_since, now)

    def peak(self, now: float) -> float:
        """As ttft, of the average that is sensitive to peaks."""
        return expected(self.peak_s, self.seen_at, self.waiting_since, now)


def expected(average_s: float, seen_at: float, waiting_since: float, now: float) -> float:
    """The average, forgotten with time; or how long the oldest call waits already, when that is longer. So an engine
    that hangs gets slower by the second, before any timeout."""
    faded, waits = average_s * exp((seen_at - now) * _PER_S), now - waiting_since
    return waits if waits > faded else faded


class Draw(msgspec.Struct, frozen=True):
    """turn: how many choices this process has made for the pool. chance: in [0, 1). now: monotonic seconds."""

    turn: int
    chance: float = 0.0
    now: float = 0.0
