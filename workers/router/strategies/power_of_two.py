"""The less loaded of two different endpoints that chance has drawn by weight (Mitzenmacher's two choices).

Nearly as even as the least loaded of all, and many processes with the same view don't rush to the same endpoint.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from workers.router.strategies.candidate import Candidate, Draw


def power_of_two(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index with the smaller load by weight; of two equal ones the first drawn."""
    if len(candidates) == 1:
        return 0
    marks = list(accumulate([one.weight for one in candidates]))
    point = draw.chance * marks[-1]
    one = bisect_right(marks, point, hi=len(marks) - 1)
    other = _second(candidates, marks, one, point)
    return other if _load(candidates[other]) < _load(candidates[one]) else one


def _second(candidates: Sequence[Candidate], marks: list[int], one: int, point: float) -> int:
    """Another index, by weight. Where in its own part the first point fell is chance again, independent of the part."""
    weight = candidates[one].weight
    before = marks[one] - weight
    again = min(max((point - before) / weight, 0.0), 1.0) * (marks[-1] - weight)
    if again >= before:
        again += weight
    found = bisect_right(marks, again, hi=len(marks) - 1)
    return found if found != one else (one + 1) % len(candidates)


def _load(one: Candidate) -> float:
    return (one.in_use + 1) / one.weight
