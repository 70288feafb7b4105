"""The endpoints that are quickest to the first byte; among those that are about equally quick the least loaded one.

Without the band every request would go to the one that leads by a millisecond, until it leads no more. An endpoint of
which nothing is known counts as quick while it has no request, so it becomes known; one that was slow is forgotten over
base.ewma.DECAY_S and tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from workers.router.strategies.candidate import Candidate, Draw, expected
from workers.router.strategies.ties import least

#: Times the quickest that still counts as equally quick.
BAND = 1.25
#: Seconds by which two may differ and still be equally quick.
NOISE_S = 0.005
#: Seconds that an endpoint without history is taken to need while its first requests are under way.
UNKNOWN_S = 1.0


def latency(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index with the smallest load by weight among the quick ones; ties go round with the turn."""
    now = draw.now
    seconds = [
        expected(one.ttft_s, one.seen_at, one.waiting_since, now) if one.ttft_s or not one.in_use else UNKNOWN_S
        for one in candidates
    ]
    bound = min(seconds) * BAND + NOISE_S
    loads = [
        (one.in_use + 1) / one.weight if known <= bound else inf for one, known in zip(candidates, seconds, strict=True)
    ]
    return least(loads, draw.turn)
