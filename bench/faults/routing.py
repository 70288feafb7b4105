"""What a failing engine costs the clients while another one of its pool is healthy: cases, steady load, promises.

    dies       the engine's process is killed          slow       ten times slower
    hangs      takes requests, says nothing            flaps      500 for a second, well for a second, again and again
    full       429 with Retry-After: 1                 breaks     falls silent between two tokens

A case is one model with two endpoints; both are seen well, then one gets its fault, then it recovers. Promises: no
request fails (in `breaks` an answer that has begun cannot be asked for again: it ends with an error that has a code),
and the engines get at most 20 % more requests than the clients sent.
"""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from time import monotonic
from typing import Any, Protocol

from bench.client import Plan
from bench.faults.table import aligned
from bench.load import Load, Pace, chat_request
from bench.peers import http_get

#: Milliseconds that never pass within a run.
NEVER_MS = 1e9
#: Of an engine that is well: milliseconds to the first token and between tokens; tokens of an answer.
WELL = {"ttft_ms": 30.0, "itl_ms": 1.0, "err": 0}
TOKENS = 5
#: Requests per client request that engines may get.
MOST_CALLS = 1.2
#: Share of a pool's new requests above which its failing engine is not avoided.
SHARE = 0.25
_LOOK_S = 0.25


class Engine(Protocol):
    """The engine that fails."""

    def set(self, **settings: float) -> None: ...

    def kill(self) -> None: ...


Act = Callable[[Engine, asyncio.Event], Coroutine[Any, Any, None]]


def sets(**settings: float) -> Act:
    """A fault that is a setting of the engine."""

    async def act(engine: Engine, over: asyncio.Event) -> None:
        await asyncio.to_thread(engine.set, **settings)

    return act


async def dies(engine: Engine, over: asyncio.Event) -> None:
    await asyncio.to_thread(engine.kill)


async def flaps(engine: Engine, over: asyncio.Event) -> None:
    """A second of errors, a second without, until it is over."""
    status = 0
    while not over.is_set():
        status = 0 if status else 500
        await asyncio.to_thread(engine.set, err=status)
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 1.0)


@dataclass(frozen=True, slots=True)
class Case:
    """name: also the model's. may_break: answers that have begun may end with an error. comes_back: it recovers."""

    name: str
    act: Act
    may_break: bool = False
    comes_back: bool = True


#: The one that ends its process comes last.
CASES = (
    Case("hangs", sets(ttft_ms=NEVER_MS)),
    Case("slow", sets(ttft_ms=WELL["ttft_ms"] * 10, itl_ms=WELL["itl_ms"] * 10)),
    Case("full", sets(err=429)),
    Case("flaps", flaps),
    Case("breaks", sets(itl_ms=NEVER_MS), may_break=True),
    Case("dies", dies, may_break=True, comes_back=False),
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Requests a second; seconds before the fault, of the fault, after it."""

    rate: float
    before_s: float
    fault_s: float
    after_s: float


FULL, QUICK = Lengths(25, 2, 15, 5), Lengths(20, 1, 5, 2)


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and where the router says what it calls."""

    url: str
    key: str
    metrics_url: str


@dataclass(slots=True)
class Row:
    """What came of one case. calls: requests that engines got. avoided_s: from the fault until the failing engine got
    less than its SHARE for good."""

    case: Case
    requests: int = 0
    failed: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    worst_ttft_ms: float = 0.0
    avoided_s: float = 0.0

    @property
    def extra(self) -> float:
        """Calls of engines for one request."""
        return self.calls / self.requests if self.requests else 0.0

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        found = []
        if self.failed and not self.case.may_break:
            found.append(f"{self.failed} of {self.requests} requests failed")
        if self.case.may_break and set(self.codes) - {"upstream_timeout", "upstream_interrupted"}:
            found.append(f"requests failed otherwise than inside an answer: {self.codes}")
        if self.failed > 0.2 * self.requests:
            found.append(f"{self.failed} of {self.requests} answers broke off")
        if self.extra > MOST_CALLS:
            found.append(f"engines got {self.extra:.2f} requests for one")
        if not self.requests:
            found.append("nothing was sent")
        return found


def plain(row: Row) -> dict[str, Any]:
    """For programs."""
    return {
        "case": row.case.name,
        "requests": row.requests,
        "failed": row.failed,
        "codes": row.codes,
        "calls_per_request": row.extra,
        "worst_ttft_ms": row.worst_ttft_ms,
        "avoided_s": row.avoided_s,
        "broken": row.broken(),
    }


def read(value: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows that `plain` wrote. ValueError for anything else."""
    cases = {case.name: case for case in CASES}
    try:
        return [
            Row(
                cases[one["case"]],
                one["requests"],
                one["failed"],
                one["codes"],
                round(one["calls_per_request"] * one["requests"]),
                one["worst_ttft_ms"],
                one["avoided_s"],
            )
            for one in value
        ]
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a table of scripts/faults ({error})") from None


HEAD = ("case", "requests", "failed", "codes", "calls per request", "worst TTFT ms", "avoided after s")


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned."""
    return aligned([HEAD, *(_cells(row) for row in rows)])


def _cells(row: Row) -> tuple[str, ...]:
    codes = ", ".join(f"{name} x {count}" for name, count in row.codes.items()) or "-"
    return (
        row.case.name, str(row.requests), str(row.failed), codes, f"{row.extra:.3f}", f"{row.worst_ttft_ms:.0f}",
        f"{row.avoided_s:.1f}",
    )  # fmt: skip


def started(exposition: str, names: Sequence[str]) -> dict[str, int]:
    """Calls that the router has begun by endpoint: those that ended and those under way. Pure."""
    found = dict.fromkeys(names, 0)
    for line in exposition.splitlines():
        match = re.match(
            r'headrace_(?:upstream_attempts_total|endpoint_inflight)\{.*?endpoint="([^"]+)".*\} (\S+)', line
        )
        if match and match[1] in found:
            found[match[1]] += int(float(match[2]))
    return found


def avoided(looks: Sequence[tuple[float, int, int]], fault_at: float, over_at: float) -> float:
    """Seconds after the fault at which the failing engine got its last large share. looks: (when, its calls, calls of
    all), as counted up to then."""
    last = fault_at
    for (_, bad, all_calls), (at, bad_later, all_later) in pairwise(looks):
        news, more = bad_later - bad, all_later - all_calls
        if fault_at < at <= over_at and news > 1 and news > SHARE * more:
            last = at
    return last - fault_at


async def run(case: Case, target: Target, engine: Engine, lengths: Lengths) -> Row:
    """One case under load. The endpoints are called <case>-bad and <case>-good."""
    names = (f"{case.name}-bad", f"{case.name}-good")
    load = _load(case, target, lengths)
    looks: list[tuple[float, int, int]] = []
    watch = asyncio.create_task(_watch(target, names, looks))
    drive = asyncio.create_task(load.open())
    load.tally.begin()
    await asyncio.sleep(lengths.before_s)
    fault_at, over = monotonic(), asyncio.Event()
    fault = asyncio.create_task(case.act(engine, over))
    await asyncio.sleep(lengths.fault_s)
    over_at = monotonic()
    over.set()
    await fault
    if case.comes_back:
        await asyncio.to_thread(engine.set, **WELL)
    await asyncio.sleep(lengths.after_s)
    load.stop()
    await drive
    await load.drain()
    load.tally.end()
    watch.cancel()
    calls = await asyncio.to_thread(lambda: started(http_get(target.metrics_url), names))
    return Row(
        case,
        requests=load.tally.sent,
        failed=sum(load.tally.errors.values()),
        codes=_codes(load.tally.errors, load.tally.examples),
        calls=sum(calls.values()),
        worst_ttft_ms=max(load.tally.first_token, default=0) / 1e6,
        avoided_s=avoided(looks, fault_at, over_at),
    )


def _load(case: Case, target: Target, lengths: Lengths) -> Load:
    host, port, request = chat_request(
        target.url, case.name, target.key, [], stream=True, usage=False, tokens=TOKENS, prompt_chars=100
    )
    pace = Pace(0, lengths.rate, 0.0, 0.0, 0.0, 30.0, 512)
    return Load(Plan(host, port, repeat(request), True, TOKENS), pace)


async def _watch(target: Target, names: tuple[str, str], looks: list[tuple[float, int, int]]) -> None:
    """Look at the router's counters again and again."""
    while True:
        text = await asyncio.to_thread(http_get, target.metrics_url)
        calls = started(text, names)
        looks.append((monotonic(), calls[names[0]], sum(calls.values())))
        await asyncio.sleep(_LOOK_S)


def _codes(errors: Mapping[str, int], examples: Mapping[str, str]) -> dict[str, int]:
    """Errors by the code of one example of their kind, else by kind."""
    found: dict[str, int] = {}
    for kind, count in errors.items():
        code = _code(examples.get(kind, "")) or kind
        found[code] = found.get(code, 0) + count
    return found


def _code(example: str) -> str:
    start = example.find("{")
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(example[start:])["error"]["code"])
    match = re.search(r'"code": ?"(\w+)"', example)
    return match[1] if match else ""


def settings(cases: Sequence[Case], bad_url: str, good_url: str, strategy: str) -> str:
    """headrace.yaml of the run: a model for each case with two endpoints, and patience to fit engines of 30 ms."""
    lines = [
        f"router: {{strategy: {strategy}, connect_timeout_s: 1, first_byte_timeout_s: 2, idle_timeout_s: 1,",
        "  slow_after_s: 0.5, breaker: {open_s: 2, open_most_s: 10, probe_s: 4}}",
        "provisioner: {interval_s: 1}",
        "models:",
    ]
    for case in cases:
        for word, url in (("bad", bad_url), ("good", good_url)):
            lines.append(
                f"  - {{name: {case.name}, deployment: {case.name}-{word}, pool: {case.name}, url: '{url}', slots: 64}}"
            )
    return "\n".join(lines) + "\n"
