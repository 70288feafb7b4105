"""The endpoint with the fewest requests for its weight; among equals they take turns."""

from __future__ import annotations

from collections.abc import Sequence


def least_inflight(weights: Sequence[int], in_use: Sequence[int], turn: int) -> int:
    """The index with the smallest load after one more request, by weight; ties go round with `turn`."""
    loads = [(used + 1) / weight for weight, used in zip(weights, in_use, strict=True)]
    least = min(loads)
    equals = loads.count(least)
    index = loads.index(least)
    for _ in range(turn % equals):
        index = loads.index(least, index + 1)
    return index
