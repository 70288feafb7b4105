"""Averages of a time span that forget with time, not with the number of samples. Pure: seconds in, seconds out.

    faded      an old value after `elapsed` seconds without news: it goes towards 0, so what was slow is tried again
    average    an old value and a new sample, weighed by the time between them
    peak       the same, but a sample above the old value counts at once and whole: quick to fear, slow to trust

`peak` and the time constant are those of Finagle's PeakEwma balancer (decayTime, 10 s by default; Envoy's peak_ewma
policy has the same). A value of 0 means "nothing known".
"""

from __future__ import annotations

from math import exp

#: Seconds after which an old value counts 1/e of what it did.
DECAY_S = 10.0


def faded(value: float, elapsed: float) -> float:
    """The value after `elapsed` seconds (>= 0) without a sample."""
    return value * exp(-elapsed / DECAY_S)


def average(old: float, sample: float, elapsed: float) -> float:
    """The value after a sample that came `elapsed` seconds after the one before."""
    if old <= 0:
        return sample
    kept = exp(-max(elapsed, 0.0) / DECAY_S)
    return old * kept + sample * (1 - kept)


def peak(old: float, sample: float, elapsed: float) -> float:
    """As `average`; a sample above the old value becomes the value."""
    return sample if sample >= old else average(old, sample, elapsed)
