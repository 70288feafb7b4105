"""The few numbers the benchmark speaks in: percentiles inside a run, median and spread over the runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from statistics import median


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of the sorted values do not exceed; ValueError when empty."""
    if not ordered:
        raise ValueError("no values, no percentile")
    rank = ceil(round(len(ordered) * share, 6))
    return ordered[min(len(ordered), max(1, rank)) - 1]


def milliseconds(values_ns: Iterable[int]) -> dict[str, float]:
    """n, mean, p50, p90, p99, max of nanosecond values, in milliseconds; only n when there are none."""
    ordered = sorted(values_ns)
    if not ordered:
        return {"n": 0}
    figures = {f"p{int(share * 100)}": percentile(ordered, share) / 1e6 for share in (0.5, 0.9, 0.99)}
    mean = sum(ordered) / len(ordered) / 1e6
    return {"n": len(ordered), "mean": round(mean, 4), "max": ordered[-1] / 1e6, **figures}


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the runs: its median and both ends. No run is left out."""

    median: float
    low: float
    high: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum of the values of all runs; ValueError when there are none."""
    if not values:
        raise ValueError("no runs, no spread")
    return Spread(median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Fit:
    """A line by least squares: its slope, and the standard error of that (infinite below three points)."""

    slope: float
    error: float


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """The line through points of (x, y); a slope of 0 without an answer when they have no width."""
    if not points:
        return Fit(0.0, inf)
    middle = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    width = sum((x - middle) ** 2 for x, _ in points)
    if not width:
        return Fit(0.0, inf)
    slope = sum((x - middle) * (y - mean) for x, y in points) / width
    if len(points) < 3:
        return Fit(slope, inf)
    rest = sum((y - mean - slope * (x - middle)) ** 2 for x, y in points)
    return Fit(slope, sqrt(rest / (len(points) - 2) / width))
