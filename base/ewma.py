"""Averages of a time span that forget with time, not with the number of samples. Pure: seconds in, seconds out.

The peak-sensitive one and the time constant are those of Finagle's PeakEwma balancer (decayTime, 10 s by default, as
in Envoy's peak_ewma policy). A value of 0 means "nothing known".
"""

from __future__ import annotations

from math import exp

import msgspec

#: Seconds after which an old value counts 1/e of what it did.
DECAY_S = 10.0


def average(old: float, sample: float, elapsed: float) -> float:
    """The value after a sample that came `elapsed` seconds after the one before."""
    if old <= 0:
        return sample
    kept = exp(-max(elapsed, 0.0) / DECAY_S)
    return old * kept + sample * (1 - kept)


class Sample(msgspec.Struct, frozen=True):
    """What one process has measured of an endpoint in a while: the mean and the largest time to the first byte."""

    mean_s: float
    most_s: float


class Latency(msgspec.Struct, frozen=True):
    """How long an endpoint takes to its first byte, as it was known at `at` (seconds of a monotonic clock).

    ttft_s: the average. peak_s: jumps to a sample above it at once and comes down as the average does: quick to fear,
    slow to trust."""

    ttft_s: float = 0.0
    peak_s: float = 0.0
    at: float = 0.0

    def after(self, sample: Sample, now: float) -> Latency:
        """With what came in since."""
        elapsed = now - self.at
        peak = sample.most_s if sample.most_s >= self.peak_s else average(self.peak_s, sample.mean_s, elapsed)
        return Latency(average(self.ttft_s, sample.mean_s, elapsed), peak, now)


def joined(samples: list[float]) -> Sample:
    """Several measurements, at least one, as one sample."""
    return Sample(sum(samples) / len(samples), max(samples))
