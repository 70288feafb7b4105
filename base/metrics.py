"""Counts what base/metrics_list.py lists, and shows it to Prometheus.

    metrics.inc("headrace_requests_total", route="/v1/chat/completions", model=model, outcome="completed", status="200")
    metrics.observe("headrace_queue_wait_seconds", 0.012, model=model)
    metrics.gauge("headrace_endpoint_up", 1, endpoint=name, model=model)

A name outside the list does not pass mypy. No label is ever a key, a user or a request id; a metric keeps at most
1,000 combinations of labels, later ones are counted under "other" (a client can't fill the memory with model names).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Shown
from prometheus_client.registry import Collector

from base.counts import Spread, Value
from base.metrics_list import METRICS, CounterName, GaugeName, HistogramName

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MOST = 1_000  # label combinations of one metric
_OTHER = "other"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter that nobody draws
REGISTRY = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=REGISTRY)

#: One look-up per count: under the labels as they are given, and under their values as they are shown.
_values: dict[tuple[object, ...], Value] = {}
_spreads: dict[tuple[object, ...], Spread] = {}
_shown: dict[str, list[tuple[tuple[str, ...], Value | Spread]]] = {one.name: [] for one in METRICS}
_LIST = {one.name: one for one in METRICS}
_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
T = TypeVar("T", Value, Spread)


def inc(name: CounterName, by: float = 1, /, **labels: str) -> None:
    """Count `by` more."""
    child = _values.get((name, *labels.items())) or _kept(_values, name, labels, Value())
    child.value += by


def gauge(name: GaugeName, value: float, /, **labels: str) -> None:
    """The present value."""
    child = _values.get((name, *labels.items())) or _kept(_values, name, labels, Value())
    child.value = float(value)


def observe(name: HistogramName, value: float, /, **labels: str) -> None:
    """One more measurement."""
    child = _spreads.get((name, *labels.items())) or _kept(_spreads, name, labels, Spread(_LIST[name].buckets))
    child.observe(value)


def observe_all(name: HistogramName, values: Sequence[float], /, **labels: str) -> None:
    """Several measurements under the same labels; nothing is shown for none."""
    if not values:
        return
    child = _spreads.get((name, *labels.items())) or _kept(_spreads, name, labels, Spread(_LIST[name].buckets))
    for value in values:
        child.observe(value)


def exposition() -> bytes:
    """Everything in the Prometheus text format."""
    return generate_latest(REGISTRY)


def names() -> frozenset[str]:
    """Every name that the helpers accept."""
    return frozenset((*get_args(CounterName), *get_args(GaugeName), *get_args(HistogramName)))


def _kept(children: dict[tuple[object, ...], T], name: str, labels: dict[str, str], new: T) -> T:
    """The one under these labels, from now on `new`; or that under "other" once the metric has too many combinations,
    not kept under these."""
    names = _LIST[name].labels
    if labels.keys() != set(names):
        raise ValueError(f"{name} has the labels {', '.join(names)}")
    full = len(_shown[name]) >= _MOST
    values = tuple([_OTHER if full else labels[one] for one in names])
    child = children.get((name, values))
    if child is None:
        child = children[name, values] = new
        _shown[name].append((values, child))
    if not full:
        children[name, *labels.items()] = child
    return child


class _Counts(Collector):
    """What prometheus_client shows of this process."""

    def collect(self) -> Iterator[Shown]:
        for one in METRICS:
            family = _FAMILIES[one.kind](one.name, one.meaning, labels=one.labels)
            for values, child in _shown[one.name]:
                child.shown(family, values)
            yield family


REGISTRY.register(_Counts())
for _one in METRICS:
    if not _one.labels:  # shown as 0 before it is counted; no histogram is without labels
        _kept(_values, _one.name, {}, Value())
