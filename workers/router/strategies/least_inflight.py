"""The endpoint with the fewest requests for its weight; among equals they take turns."""

from __future__ import annotations

from collections.abc import Sequence

from workers.router.strategies.candidate import Candidate, Draw
from workers.router.strategies.ties import least


def least_inflight(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index with the smallest load after one more request, by weight; ties go round with the turn."""
    return least([(one.in_use + 1) / one.weight for one in candidates], draw.turn)
