"""The endpoint with the fewest requests for its weight; among equals they take turns."""

from __future__ import annotations

from collections.abc import Sequence

from workers.router.strategies.candidate import Candidate


def least_inflight(candidates: Sequence[Candidate], turn: int) -> int:
    """The index with the smallest load after one more request, by weight; ties go round with `turn`."""
    loads = [(in_use + 1) / weight for weight, in_use in candidates]
    least = min(loads)
    equals = [index for index, load in enumerate(loads) if load == least]
    return equals[turn % len(equals)]
