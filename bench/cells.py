"""The cells of a run: how the engine is set, how the load is driven, and which figures come out.

Pure. A cell is measured for every peer before the next cell begins, so that all peers see the same minutes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Seconds a measured window is open; --window scales the cells that sustain a load.
WINDOW = 4.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One load. `kind` decides which figures are made of it: ladder, rate, first_token, flow, hold, relay."""

    kind: str
    label: str
    engine: Mapping[str, float]
    load: Mapping[str, float | bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique in a run."""
        return f"{self.kind} {self.label}"


def ladder(connections: int, window: float) -> Cell:
    """Short requests as fast as this many connections are answered."""
    load = {"connections": connections, "tokens": 16, "expect": 16, "warmup": window / 4, "duration": window * 0.75}
    return Cell("ladder", f"{connections} connections", {"ttft_ms": 0, "itl_ms": 0}, load)


def rate(per_second: int, window: float) -> Cell:
    """Short requests at a fixed offered rate."""
    load = {"rate": per_second, "tokens": 16, "expect": 16, "warmup": window / 4, "duration": window}
    return Cell("rate", f"{per_second}/s", {"ttft_ms": 0, "itl_ms": 0}, load)


def first_token(per_second: int, window: float) -> Cell:
    """Short streams; the engine's own first token comes before 40 ms, or a missing TCP_NODELAY would not show."""
    load = {
        "rate": per_second,
        "stream": True,
        "tokens": 16,
        "expect": 16,
        "warmup": window / 4,
        "duration": window * 1.25,
    }
    return Cell("first_token", f"{per_second}/s", {"ttft_ms": 20, "itl_ms": 5}, load)


def hold(streams: int, per_second: float, window: float, tokens: int = 0) -> Cell:
    """So many streams at once, each with so many tokens a second, renewed as they end: 100 tokens each, or what takes
    longer than the window. They begin spread over the life of one, so that each second sees as many begin and end."""
    tokens = tokens or max(100, round(per_second * window * 1.25))
    return _streams("hold", streams, per_second, tokens, tokens / per_second, window)


def flow(streams: int, per_second: float, window: float) -> Cell:
    """The same while none begins or ends: what a token costs without its share of a request."""
    return _streams("flow", streams, per_second, round(per_second * window * 2.5), window / 2, window)


def _streams(kind: str, streams: int, pace: float, tokens: int, ramp: float, window: float) -> Cell:
    load = {"connections": streams, "stream": True, "usage": True, "tokens": tokens, "expect": tokens,
            "ramp": ramp, "warmup": ramp + window / 4, "duration": window,
            "timeout": 30 + tokens / pace}  # fmt: skip
    label = f"{streams} streams x {pace:g}/s" + " flowing" * (kind == "flow")
    return Cell(kind, label, {"ttft_ms": 50, "itl_ms": 1000 / pace}, load)


def relay(streams: int, window: float) -> Cell:
    """Streams of an engine that writes as fast as it is read: how many tokens a second pass, and what each costs."""
    load = {"connections": streams, "stream": True, "usage": True, "tokens": 256, "expect": 256,
            "warmup": window / 2, "duration": window}  # fmt: skip
    return Cell("relay", f"{streams} streams unpaced", {"ttft_ms": 0, "itl_ms": 0}, load)


#: Streams held at once, tokens a second of each. The last is a burst: more tokens than frames.
HELD = ((100, 20.0), (500, 20.0), (1000, 10.0), (50, 333.0))


def full(window: float = WINDOW, held: Sequence[tuple[int, float]] = HELD) -> list[Cell]:
    """The cells of a whole run."""
    rungs = [ladder(connections, window) for connections in (8, 32, 128)]
    rates = [rate(300, window), rate(800, window)]
    streams = [flow(500, 20, window), *(hold(count, pace, window) for count, pace in held)]
    return [*rates, *rungs, first_token(100, window), *streams, relay(64, window)]


def quick() -> list[Cell]:
    """A smoke test of half a minute: one small cell of each kind."""
    return [rate(100, 1), ladder(8, 1), first_token(50, 1), flow(20, 20, 1), hold(20, 20, 1, tokens=25), relay(8, 1)]


def load_arguments(cell: Cell) -> list[str]:
    """The cell as options of bench.load."""
    arguments = []
    for name, value in cell.load.items():
        if value is True:
            arguments.append(f"--{name}")
        else:
            arguments += [f"--{name}", f"{value:.12g}"]
    return arguments


@dataclass(frozen=True, slots=True)
class Value:
    """One figure of one peer in one run."""

    figure: str
    unit: str
    value: float


def figures(cell: Cell, result: Mapping[str, Any]) -> list[Value]:
    """The figures in one result of one peer; `cpu_s` of the peer's groups is part of it."""
    return _MAKERS[cell.kind](cell, result)


def _ladder(cell: Cell, result: Mapping[str, Any]) -> list[Value]:
    sustained = 0.0 if result["errors"] else result["requests_per_s"]
    return [
        Value(f"short requests/s, {cell.label}, 0 errors", "/s", sustained),
        *_percentiles(f"short requests, {cell.label}: latency", result["latency_ms"]),
        *_cpu(f"CPU per request, {cell.label}", "ms", 1e3, result, result["completed"]),
    ]


def _rate(cell: Cell, result: Mapping[str, Any]) -> list[Value]:
    return [
        Value(f"answered at {cell.label} offered", "/s", result["requests_per_s"]),
        *_percentiles(f"latency at {cell.label}", result["latency_ms"]),
        *_cpu(f"CPU per request at {cell.label}", "ms", 1e3, result, result["completed"]),
    ]


def _first_token(cell: Cell, result: Mapping[str, Any]) -> list[Value]:
    return [
        *_percentiles(f"TTFT at {cell.label}", result["ttft_ms"]),
        *_percentiles(f"relay lag at {cell.label}", result["lag_ms"]),
        *_cpu(f"CPU per short stream at {cell.label}", "ms", 1e3, result, result["completed"]),
    ]


def _hold(cell: Cell, result: Mapping[str, Any]) -> list[Value]:
    return [
        Value(f"tokens/s, {cell.label}", "/s", result["tokens_per_s"]),
        Value(f"streams dropped, {cell.label}", "", result["errors"]),
        *_percentiles(f"relay lag, {cell.label}", result["lag_ms"]),
        *_cpu(f"CPU per token, {cell.label}", "us", 1e6, result, result["tokens"]),
    ]


_MAKERS = {
    "ladder": _ladder,
    "rate": _rate,
    "first_token": _first_token,
    "flow": _hold,
    "hold": _hold,
    "relay": _hold,
}


def _percentiles(what: str, values: Mapping[str, float]) -> list[Value]:
    return [Value(f"{what} {name}", "ms", values[name]) for name in ("p50", "p99") if name in values]


def _cpu(what: str, unit: str, scale: float, result: Mapping[str, Any], count: int) -> list[Value]:
    """All processes together, then each group; nothing when the peer's processes are not known."""
    groups = result.get("cpu_s") or {}
    if not groups or not count:
        return []
    parts = [Value(f"{what}: {name}", unit, seconds * scale / count) for name, seconds in groups.items()]
    return [Value(f"{what}, all", unit, sum(part.value for part in parts)), *parts]


#: Figures that are told as what a peer adds to `direct` in the same run.
ADDED = ("TTFT at ", "latency at ")


def added(peer: list[Value], direct: list[Value]) -> list[Value]:
    """What a peer adds to the same figures of `direct`."""
    base = {value.figure: value.value for value in direct}
    return [
        Value(f"added {value.figure}", value.unit, value.value - base[value.figure])
        for value in peer
        if value.figure.startswith(ADDED) and value.figure in base
    ]


def memory(when: str, groups: Mapping[str, Mapping[str, float]]) -> list[Value]:
    """Proportional and resident memory of each group."""
    return [
        Value(f"{kind.upper()} {when}: {name}", "MB", used[kind])
        for kind in ("pss", "rss")
        for name, used in groups.items()
    ]


def run_of(
    peer: Sequence[tuple[Cell, Mapping[str, Any]]], direct: Sequence[tuple[Cell, Mapping[str, Any]]]
) -> list[Value]:
    """All figures of one peer in one run: errors and the best rung first, then cell by cell, then memory.

    `direct` is the same run's baseline; give the same list to get the baseline's own figures.
    """
    total = sum(result["errors"] for _, result in peer)
    values = [Value("errors, all cells", "", total)]
    if any(cell.kind == "ladder" for cell, _ in peer):
        values += _sustained([result for cell, result in peer if cell.kind == "ladder" and not result["errors"]])
    for (cell, result), (_, base) in zip(peer, direct, strict=True):
        own = figures(cell, result)
        values += own + (added(own, figures(cell, base)) if peer is not direct else [])
    held = [result for cell, result in peer if cell.kind == "hold"]
    return values + (memory("under load", held[-1]["memory"]) if held else [])


def _sustained(rungs: Sequence[Mapping[str, Any]]) -> list[Value]:
    """The best rung without an error, and what a request costs there."""
    best = max(rungs, key=lambda result: float(result["requests_per_s"]), default=None)
    rate = Value("short requests/s sustained, 0 errors", "/s", best["requests_per_s"] if best else 0.0)
    return [rate, *(_cpu("CPU per request sustained", "ms", 1e3, best, best["completed"])[:1] if best else [])]


def headline(result: Mapping[str, Any]) -> str:
    """One cell in a line, for whoever watches."""
    words = [f"{result['requests_per_s']:.0f} requests/s", f"{result['errors']} errors"]
    if result["tokens"]:
        words += [f"{result['tokens_per_s']:.0f} tokens/s", f"lag p99 {result['lag_ms'].get('p99', 0):.2f} ms"]
    else:
        words.append(f"latency p99 {result['latency_ms'].get('p99', 0):.2f} ms")
    if result["cpu_s"] and result["completed"]:
        words.append(f"CPU {sum(result['cpu_s'].values()):.2f} s in {result['window_s']:.1f} s")
    return ", ".join(words)
