"""Who comes, what each must come to, and which growth is real. Pure.

Of a hundred visits one reads slowly, three meet an engine that closes the connection inside its answer, two leave
inside theirs, two ask for what the guard refuses; a third of the others is unary. Everybody else must get a whole
answer, except who was open in the moment when an engine was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bench.stats import Fit, fit

Kind = Literal["plain", "unary", "slow", "cut", "leaves", "blocked"]

#: A word that the guard of this Headrace blocks.
BANNED = "nightfall"
#: What a visit comes to besides an error's code.
WHOLE, LEFT, BROKEN, LATE = "whole", "left", "broken", "late"
ORDERED: Mapping[Kind, str] = {
    "plain": WHOLE,
    "unary": WHOLE,
    "slow": WHOLE,
    "cut": "upstream_interrupted",
    "leaves": LEFT,
    "blocked": "content_policy_violation",
}
#: Errors of a visit that was open when an engine was killed.
OF_RESTARTS = frozenset({"upstream_interrupted", "upstream_error"})
_PLACES: tuple[Kind, ...] = ("slow", "cut", "cut", "cut", "leaves", "leaves", "blocked", "blocked")

#: Mean values that a series is made of before a line is laid through it: neighbours in time resemble each other.
BINS = 12
#: A slope is real from so many of its standard errors, and above so many MB/h: less, a day would not show.
_ERRORS, _LEAST = 3.0, 4.0
#: Redis may end so much above its start: a share of it, or bytes. The server's own tables do not shrink at once.
_REDIS_SHARE, _REDIS_BYTES = 0.10, 1_000_000


@dataclass(frozen=True, slots=True)
class Visit:
    """One client's stay: seconds of the monotonic clock, and what came of it (WHOLE ... or an error's code)."""

    number: int
    kind: Kind
    begun: float
    ended: float
    outcome: str
    example: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """An engine's death between two moments; live: answers it was giving."""

    at: float
    over: float
    live: int


def kind_of(number: int) -> Kind:
    """The kind of a visit; those that are special are spread over each hundred."""
    place = number * 37 % 100
    if place < len(_PLACES):
        return _PLACES[place]
    return "unary" if number % 3 == 0 else "plain"


def words_of(kind: Kind, number: int) -> str:
    """What the prompt says beside its text."""
    if kind == "cut":
        return f"@@cut={2 + number % 7}"
    return f"Tell me of project {BANNED}." if kind == "blocked" else ""


def is_ordered(visit: Visit, kills: Iterable[Kill]) -> bool:
    """Whether the plan has it so."""
    if visit.outcome == ORDERED[visit.kind]:
        return True
    if visit.kind == "cut" and visit.outcome == WHOLE:
        return False
    met = any(visit.begun <= kill.over and visit.ended >= kill.at for kill in kills)
    return met and visit.outcome in OF_RESTARTS


def outcomes(visits: Sequence[Visit], kills: Sequence[Kill]) -> list[tuple[Kind, str, int, int]]:
    """(kind, outcome, how often, of these not ordered), the kinds in the plan's order."""
    found = Counter((visit.kind, visit.outcome) for visit in visits)
    wrong = Counter((visit.kind, visit.outcome) for visit in visits if not is_ordered(visit, kills))
    order = list(ORDERED)
    keys = sorted(found, key=lambda key: (order.index(key[0]), -found[key]))
    return [(kind, outcome, found[kind, outcome], wrong[kind, outcome]) for kind, outcome in keys]


def binned(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of BINS equal pieces of a series of (seconds, value); fewer when it has fewer points."""
    edges = sorted({round(len(series) * place / BINS) for place in range(BINS + 1)})
    pieces = [series[low:high] for low, high in pairwise(edges)]
    return [(_mean([at for at, _ in piece]), _mean([value for _, value in piece])) for piece in pieces]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def slope(series: Sequence[tuple[float, float]]) -> Fit:
    """MB/h, from a series of (seconds, MB)."""
    return fit([(at / 3600, value) for at, value in binned(series)])


def grows(series: Sequence[tuple[float, float]]) -> bool:
    """Whether it grows for good: over all of it, and over its second half by itself (warming up becomes flat)."""
    return all(_is_real(slope(part)) for part in (series, series[len(series) // 2 :]))


def _is_real(found: Fit) -> bool:
    return found.slope > _LEAST and found.slope > _ERRORS * found.error


def redis_is_back(start: int, end: int) -> bool:
    """Whether its memory, in bytes, has come back to its start."""
    return end <= start + max(start * _REDIS_SHARE, _REDIS_BYTES)
