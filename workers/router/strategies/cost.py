"""The cheapest endpoint with a free slot; among equally cheap ones the least loaded. Unknown prices come last.

It fills the cheapest one before the next gets anything: slots are what bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from workers.router.strategies.candidate import Candidate, Draw
from workers.router.strategies.ties import least


def cost(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The index with the lowest known price, then the smallest load by weight; ties go round with the turn."""
    prices = [one.price or inf for one in candidates]
    cheapest = min(prices)
    return least(
        [
            (one.in_use + 1) / one.weight if price == cheapest else inf
            for one, price in zip(candidates, prices, strict=True)
        ],
        draw.turn,
    )
