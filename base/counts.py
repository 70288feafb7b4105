"""What one process has counted, for prometheus_client to show: its own values lock and check at every count, which
takes longer than counting and is for programs with threads. Counted in the loop's thread alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Value:
    """Of a counter or a gauge, under one set of labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def shown(self, family: CounterMetricFamily | GaugeMetricFamily, labels: Sequence[str]) -> None:
        """Put it into what is shown."""
        family.add_metric(labels, self.value)


class Spread:
    """Of a histogram: how many values lie between two bounds, and the sum of all."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """bounds: the upper ones, each included, ascending; above the last there is one more place."""
        self._bounds = (*bounds, inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def shown(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Put it into what is shown, where a bound counts all that lies below it."""
        bounds = [floatToGoString(one) for one in self._bounds]  # type: ignore[no-untyped-call]
        family.add_metric(labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
