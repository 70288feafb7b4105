"""The endpoint with the least expected work: how long it takes at its worst of late, times who stands in line there.

The formula of Finagle's PeakEwma and Envoy's peak_ewma policy: cost = ewma(rtt) * (requests + 1), here by weight. The
average jumps to a peak at once and forgets it over base.ewma.DECAY_S. What takes the place of the round trip is the
time to the first byte: the rest of an answer is as long as the client's max_tokens, which says nothing of the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.router.strategies.candidate import Candidate, Draw, expected
from workers.router.strategies.ties import least

#: Seconds that an endpoint without history is taken to need, once it has a request: it gets one to be known by.
UNKNOWN_S = 1.0
#: Seconds below which differences are noise; keeps the requests in flight in the formula when all are that quick.
LEAST_S = 0.001


def peak_ewma(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index with the smallest cost; ties go round with the turn."""
    now = draw.now
    return least(
        [
            max(
                expected(one.peak_s, one.seen_at, one.waiting_since, now),
                LEAST_S if one.peak_s or not one.in_use else UNKNOWN_S,
            )
            * (one.in_use + 1)
            / one.weight
            for one in candidates
        ],
        draw.turn,
    )
