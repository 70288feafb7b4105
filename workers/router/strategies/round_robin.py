"""Each endpoint in turn, as often as its weight says, as evenly spread as whole turns allow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

from workers.router.strategies.candidate import Candidate, Draw

#: Turns in one cycle at most; larger weights are scaled down to it.
_LONGEST = 4096
_GOLDEN = 0.6180339887498949


def round_robin(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index whose turn it is. Load does not matter."""
    cycle = _cycle(tuple([one.weight for one in candidates]))
    return cycle[draw.turn % len(cycle)]


@lru_cache(maxsize=256)
def _cycle(weights: tuple[int, ...]) -> tuple[int, ...]:
    """One cycle: index i stands in it weights[i] times, its turns 1/weight apart; where it begins is spread by the
    golden ratio, so that light endpoints don't come all at once."""
    shared = gcd(*weights)
    scale = max(1.0, sum(weights) / shared / max(_LONGEST, len(weights)))
    shares = [max(1, round(weight / shared / scale)) for weight in weights]
    turns = [
        ((k + (index + 1) * _GOLDEN % 1) / share, index) for index, share in enumerate(shares) for k in range(share)
    ]
    return tuple(index for _, index in sorted(turns))
