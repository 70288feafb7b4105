"""What a strategy is told: one small value for each candidate, and what makes this choice differ from the last one."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf

from base.ewma import DECAY_S


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
        """The time to the first byte as expected now: the average, forgotten with time; or how long the oldest call
        waits already, when that is longer. So an engine that hangs gets slower by the second, before any timeout."""
        return max(self.ttft_s * exp((self.seen_at - now) / DECAY_S), now - self.waiting_since)

    def peak(self, now: float) -> float:
        """As ttft, of the average that is sensitive to peaks."""
        return max(self.peak_s * exp((self.seen_at - now) / DECAY_S), now - self.waiting_since)


@dataclass(frozen=True, slots=True)
class Draw:
    """turn: how many choices this process has made for the pool. chance: in [0, 1). now: monotonic seconds."""

    turn: int
    chance: float = 0.0
    now: float = 0.0
