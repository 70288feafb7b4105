"""By chance, in proportion to the weights. Processes that route without knowing of each other never fall in step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from workers.router.strategies.candidate import Candidate, Draw


def weighted(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index on whose part of the line [0, sum of the weights) the chance falls."""
    marks = list(accumulate([one.weight for one in candidates]))
    return bisect_right(marks, draw.chance * marks[-1], hi=len(marks) - 1)
