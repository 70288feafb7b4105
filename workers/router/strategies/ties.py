"""The smallest of several figures; equals take turns."""

from __future__ import annotations

from collections.abc import Sequence


def least(figures: Sequence[float], turn: int) -> int:
    """The index of the smallest figure; among equal ones the next with every turn."""
    smallest = min(figures)
    index = figures.index(smallest)
    for _ in range(turn % figures.count(smallest)):
        index = figures.index(smallest, index + 1)
    return index
