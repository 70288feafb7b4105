"""What is varied, one axis at a time, and what a point has come to. Pure.

A point that gave wrong answers or did not keep up with its load has broken; where the load rises along the axis, those
behind it are not driven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench import cells
from bench.cells import Cell

#: Share of the offered load that must come back for a point to have held.
KEPT = 0.9
#: Requests a second of the points that vary something else: below what this house can take.
_RATE, _PROMPT_RATE = 300, 10
_PROMPT = {"prompt-chars": 1000.0}
#: The default layout with the record apart, so that it can be frozen alone.
_APART = ("--processes", "ingress|authorization,rules,persons,router,provisioner,console|audit")

State = Literal["", "aof off", "aof everysec", "aof always", "audit frozen"]


@dataclass(frozen=True, slots=True)
class Point:
    """One place on an axis. offered: requests or tokens a second; words: of `headrace up`; keys: how many take turns,
    0 = the first key alone; state: what is set before it and undone after it."""

    label: str
    cell: Cell
    offered: float
    words: tuple[str, ...] = ()
    keys: int = 0
    state: State = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """unit: what CPU is told per, request (ms) or token (us). what: the words under the axis."""

    name: str
    title: str
    what: str
    unit: Literal["request", "token"]
    points: tuple[Point, ...]
    #: Whether points behind one that broke are heavier still.
    rises: bool = True

    @property
    def scale(self) -> float:
        """Of CPU seconds, to ms or us."""
        return 1e3 if self.unit == "request" else 1e6

    @property
    def measure(self) -> str:
        return "ms" if self.unit == "request" else "us"


@dataclass(frozen=True, slots=True)
class Measured:
    """One point in one run. cpu: of each group of processes, per request or token, in the axis' measure; p50, p99 in
    ms: latency of requests, relay lag of tokens; broke: why it did not hold, "" when it did."""

    label: str
    cpu: Mapping[str, float] = field(default_factory=dict)
    p50: float | None = None
    p99: float | None = None
    broke: str = ""
    #: Share of a core that processes took which have nothing to do with it.
    others: float = 0.0

    @property
    def total(self) -> float | None:
        return sum(self.cpu.values()) if self.cpu else None


def axes(window: float) -> list[Axis]:
    """All of them."""
    return [_streams(window), _rates(window), _prompts(window), _keys(window), _aof(window), _audit(window),
            _layout(window)]  # fmt: skip


NAMES = ("streams", "rate", "prompt", "keys", "aof", "audit", "layout")


def _streams(window: float) -> Axis:
    points = [Point(f"{count:,}", cells.hold(count, pace, window), count * pace) for count, pace in _STREAMS]
    return Axis(
        "streams", "Live streams", "streams at once, 10 tokens/s each, at most 10,000 in all", "token", tuple(points)
    )


#: Streams at once and tokens a second of each: more than 10,000 a second are more than two cores carry, engine and load
#: among them.
_STREAMS = ((1, 10.0), (10, 10.0), (100, 10.0), (300, 10.0), (1000, 10.0), (2000, 5.0), (3000, 10 / 3))


def _rates(window: float) -> Axis:
    points = [_short(f"{rate:,}", rate, window) for rate in (10, 30, 100, 300, 600, 800, 1000, 1250, 1500)]
    return Axis("rate", "Requests a second", "short requests a second", "request", tuple(points))


def _prompts(window: float) -> Axis:
    sizes = {"1 kB": 1e3, "10 kB": 1e4, "100 kB": 1e5, "1 MB": 1e6}
    points = [_short(label, _PROMPT_RATE, window, {"prompt-chars": size}) for label, size in sizes.items()]
    return Axis("prompt", "Size of the prompt", f"prompt, {_PROMPT_RATE} requests/s", "request", tuple(points))


def _keys(window: float) -> Axis:
    points = [replace(_short(f"{keys:,}", _RATE, window), keys=keys) for keys in (1, 10, 100, 1000, 10_000)]
    return Axis("keys", "Keys", f"keys in turn, {_RATE} requests/s", "request", tuple(points), False)


def _aof(window: float) -> Axis:
    states: tuple[State, ...] = ("aof everysec", "aof always", "aof off")
    points = [replace(_short(state.partition(" ")[2], _RATE, window), state=state) for state in states]
    return Axis("aof", "Append-only file", f"appendfsync, {_RATE} requests/s", "request", tuple(points), False)


def _audit(window: float) -> Axis:
    states: dict[str, State] = {"on": "", "off": "audit frozen"}
    points = [replace(_short(label, _RATE, window), state=state, words=_APART) for label, state in states.items()]
    return Axis("audit", "Audit", f"record in PostgreSQL, {_RATE} requests/s", "request", tuple(points), False)


def _layout(window: float) -> Axis:
    points = [
        replace(_short(f"{layout} {rate}/s", rate, window), words=("--processes", layout))
        for rate in (100, 300)
        for layout in ("merged", "split")
    ]
    return Axis("layout", "Layout of processes", "layout and short requests a second", "request", tuple(points), False)


def _short(label: str, rate: float, window: float, more: Mapping[str, float] = _PROMPT) -> Point:
    cell = cells.rate(round(rate), window)
    return Point(label, replace(cell, label=label, load={**cell.load, **more}), rate)


def measured(axis: Axis, point: Point, result: Mapping[str, Any]) -> Measured:
    """What one result of `bench.measure` says of a point."""
    count = result["tokens"] if axis.unit == "token" else result["completed"]
    cpu: dict[str, float] = {}
    for name, seconds in result["cpu_s"].items() if count else ():
        place = "workers" if "+" in name else name
        cpu[place] = cpu.get(place, 0.0) + seconds * axis.scale / count
    waited = result["lag_ms"] if axis.unit == "token" else result["latency_ms"]
    others = result["others_cpu_s"] / result["window_s"]
    return Measured(point.label, cpu, waited.get("p50"), waited.get("p99"), broke(axis, point, result), others)


def broke(axis: Axis, point: Point, result: Mapping[str, Any]) -> str:
    """Why the point did not hold; "" when it did."""
    if result["errors"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in result["errors_by_kind"].items())
        return f"{result['errors']} of {result['sent']} answers wrong or lost: {kinds}"
    given = result["tokens_per_s"] if axis.unit == "token" else result["requests_per_s"]
    if result["unsent"] or given < KEPT * point.offered:
        return f"{given:,.0f} of {point.offered:,.0f} a second"
    return ""
