"""Plays a soak and judges it: `scripts/soak [--minutes 30]`.

A fresh Headrace with a process per room and two engines; visitors of every kind in turn; every so often one engine is
killed and comes back. Measured from a first rest (after a short load that opens every pool) to a last one.

Exit code 0; 1 when a visit came to what the plan does not have, a process grows for good, Redis keeps what it should
have dropped, or a process died; 2 when something did not start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from bench import machine
from bench.faults.waiting import until
from bench.loop import run_fast
from bench.measure import MockEngine
from bench.peers import StartError, fetch
from bench.report import put
from bench.soak import plan
from bench.soak.plan import Kill
from bench.soak.visits import Guests
from bench.soak.watch import State, Watch
from tests.e2e.house import House, headrace

MODEL = "mock"
_PACE = {"ttft_ms": 20, "itl_ms": 20}
#: Seconds until no run is live, at most.
_PATIENCE_S = 60.0
#: A process may hold so many more at the end: pools and servers keep a few connections as they like.
_SLACK = 12


@dataclass(frozen=True, slots=True)
class Wish:
    """Seconds of the load, of the load before it, between two kills, that an engine is away, and that an ended run
    stays readable; visits a second; tokens that are read slowly; seconds of rest beyond that of the ended runs; visits
    and share of the load until everything is warm: the largest memory of names holds 4,096 runs."""

    seconds: float
    warm_s: float = 30.0
    kill_every_s: float = 60.0
    away_s: float = 3.0
    retention_s: int = 30
    rate: float = 40.0
    slow_tokens: int = 1000
    calm_s: float = 5.0
    warm_visits: int = 12_000
    warm_share: float = 0.25

    @property
    def warm_after_s(self) -> float:
        """Seconds of the load after which growth counts."""
        return max(self.seconds * self.warm_share, self.warm_visits / self.rate)

    @property
    def watch_every_s(self) -> float:
        """Seconds between two readings of memory."""
        return min(5.0, self.seconds / 60)


#: A form of half a minute, for a test: what it says of memory means nothing. It rests 6.5 s, since a router's pool
#: keeps an idle connection up to 4.5 (providers/pool.py: KEEP_ALIVE_S and half of it until it is swept).
QUICK = Wish(seconds=12, warm_s=3, kill_every_s=5, away_s=1, retention_s=2, rate=20, slow_tokens=100, calm_s=4)


@dataclass(slots=True)
class Found:
    """What a soak has come to."""

    guests: Guests
    watch: Watch
    start: State
    kills: list[Kill] = field(default_factory=list)
    end: State | None = None
    began: float = 0.0
    died: list[str] = field(default_factory=list)


class Engines:
    """Two engines of one pool, each killed and started again where it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = [self._start(number, 0) for number in range(2)]
        self.kills: list[Kill] = []

    @property
    def urls(self) -> list[str]:
        return [engine.url for engine in self._running]

    def _start(self, number: int, port: int) -> MockEngine:
        engine = MockEngine(self._folder / f"engine{number}.log", None, port)
        engine.set(_PACE)
        return engine

    async def restart(self, number: int, away_s: float) -> None:
        """Kill one, leave it away, and start it on the same port."""
        old = self._running[number]
        live, at = fetch(f"{old.root}/_mock/stats")["live"], monotonic()
        old.program.process.kill()
        old.program.process.wait()
        self.kills.append(Kill(at, monotonic(), live))
        await asyncio.sleep(away_s)
        port = int(old.root.rpartition(":")[2])
        self._running[number] = await asyncio.to_thread(self._start, number, port)

    async def restart_in_turn(self, wish: Wish, over: asyncio.Event) -> None:
        """One after the other until it is over; a restart that has begun is finished, or its engine were nobody's."""
        number = 0
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(wish.kill_every_s):
                    await over.wait()
                    return
            await self.restart(number % 2, wish.away_s)
            number += 1

    def stop(self) -> None:
        for engine in self._running:
            engine.program.stop(5)


@contextmanager
def ground(folder: Path, wish: Wish) -> Iterator[tuple[House, Engines]]:
    """A Headrace with the guard's word and a short memory, and its engines."""
    engines = Engines(folder)
    settings = f"redis: {{retention_s: {wish.retention_s}}}\nguardrails: {{banned_words: [{plan.BANNED}]}}\n"
    try:
        named = [(MODEL, url) for url in engines.urls]
        with headrace(folder / "data", "--processes", "split", settings=settings, engines=named) as house:
            yield house, engines
    finally:
        engines.stop()


async def soak(house: House, engines: Engines, wish: Wish, say: Callable[[str], None]) -> Found:
    """The whole: a short load, rest, the load with kills, rest."""
    watch = Watch(house, wish.watch_every_s)
    await _guests(house, wish).come(wish.warm_s)
    await _rest(watch, wish)
    found = Found(_guests(house, wish), watch, watch.state(), engines.kills)
    say(f"at rest after a first load; {wish.seconds / 60:.1f} minutes follow")
    over = asyncio.Event()
    watching = asyncio.create_task(watch.watch())
    killing = asyncio.create_task(engines.restart_in_turn(wish, over))
    found.began = monotonic()
    try:
        await found.guests.come(wish.seconds)
    finally:
        over.set()
        watching.cancel()
        ended = await asyncio.gather(watching, killing, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):  # a process that cannot be read any more is told by its name
            say(f"while watching: {error!r}")
    await _rest(watch, wish)
    found.died = watch.new_processes()
    found.end = watch.state()
    return found


def _guests(house: House, wish: Wish) -> Guests:
    return Guests(house.base_url, house.key, MODEL, wish.rate, wish.slow_tokens)


async def _rest(watch: Watch, wish: Wish) -> None:
    """Until no run lives and what has ended is forgotten."""
    with suppress(AssertionError):  # what stays alive is told by the keys and tasks at the end
        await until(lambda: not watch.live(), "no live run", _PATIENCE_S)
    await asyncio.sleep(wish.retention_s * 1.25 + wish.calm_s)


def problems(found: Found, wish: Wish, *, by_memory: bool = True) -> list[str]:
    """What is against the plan. by_memory: growth counts; a short form has none to tell of."""
    assert found.end is not None
    lines = [f"{name} is another process than at the start, or gone" for name in found.died]
    for kind, outcome, _, wrong in plan.outcomes(found.guests.visits, found.kills):
        if wrong:
            lines.append(
                f"{wrong} visits of kind {kind} came to {outcome}, for example {_example(found, kind, outcome)}"
            )
    if found.guests.unsent:
        lines.append(f"{found.guests.unsent} visits could not begin: too many were open")
    for name, held in found.end.held.items():
        first = found.start.held[name]
        for what in ("files", "sockets", "tasks"):
            before, after = getattr(first, what), getattr(held, what)
            if after > before + _SLACK:
                lines.append(f"{name} holds {after} {what} at the end, {before} at the start")
    return lines + (_grown(found, wish) if by_memory else [])


def _grown(found: Found, wish: Wish) -> list[str]:
    assert found.end is not None
    lines = [
        f"{name} grows for good"
        for name, series in found.watch.series.items()
        if plan.grows(steady(series, found, wish))
    ]
    if not plan.redis_is_back(found.start.memory, found.end.memory):
        lines.append(f"Redis holds {_mb(found.end.memory)} MB at the end, {_mb(found.start.memory)} at the start")
    return lines


def steady(series: Sequence[tuple[float, float]], found: Found, wish: Wish) -> Sequence[tuple[float, float]]:
    """What was read after the warm-up."""
    return [one for one in series if one[0] >= found.began + wish.warm_after_s]


def _example(found: Found, kind: str, outcome: str) -> str:
    wrong = (one for one in found.guests.visits if (one.kind, one.outcome) == (kind, outcome))
    return next((f"{one.number}: {one.example}" for one in wrong if not plan.is_ordered(one, found.kills)), "")


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f}"


def report(found: Found, wish: Wish) -> list[str]:
    """The tables, as Markdown."""
    assert found.end is not None
    lines = ["| visits | came to | how many | not ordered |", "|---|---|---:|---:|"]
    lines += [f"| {kind} | {outcome} | {many:,} | {wrong} |"
              for kind, outcome, many, wrong in plan.outcomes(found.guests.visits, found.kills)]  # fmt: skip
    live = sum(kill.live for kill in found.kills)
    lines += ["", f"{len(found.kills)} engines killed while they gave {live} answers.", ""]
    lines += ["| process | MB after warm-up | MB at the end | MB/h | files | sockets | tasks |",
              "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, series in found.watch.series.items():
        lines.append(_row(name, steady(series, found, wish), found.start, found.end))
    start, end = found.start, found.end
    both = (
        f"{_mb(state.memory)} MB, {sum(state.keys.values())} keys, {state.clients} connections"
        for state in (start, end)
    )
    lines += ["", "Redis: {} at the start; {} at the end.".format(*both)]
    if not any(steady(series, found, wish) for series in found.watch.series.values()):
        lines += [
            "",
            f"Too short to judge memory: growth counts after {wish.warm_after_s / 60:.1f} minutes of the load.",
        ]
    more = {name: count - start.keys.get(name, 0) for name, count in end.keys.items()}
    lines += [f"More keys than at the start: {name} {count}" for name, count in more.items() if count > 0]
    return lines


def _row(name: str, series: Sequence[tuple[float, float]], start: State, end: State) -> str:
    line, before, after = plan.slope(series), start.held[name], end.held.get(name)
    held = ["", "", ""]
    if after:
        held = [f"{before.files} -> {after.files}", f"{before.sockets} -> {after.sockets}",
                "" if after.tasks < 0 else f"{before.tasks} -> {after.tasks}"]  # fmt: skip
    first, last = (f"{value:.1f}" for value in (series[0][1], series[-1][1])) if series else ("", "")
    return f"| {name} | {first} | {last} | {line.slope:+.1f} ± {line.error:.1f} | " + " | ".join(held) + " |"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=40.0, help="visits a second")
    parser.add_argument("--quick", action="store_true", help="twenty seconds; its figures of memory mean nothing")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables between that page's marks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the readings of memory there")
    return parser.parse_args(arguments)


def main() -> int:
    """The program behind scripts/soak."""
    asked = parse()
    wish = QUICK if asked.quick else Wish(asked.minutes * 60, rate=asked.rate)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: list[Found] = []

    async def run(house: House, engines: Engines) -> int:
        found.append(await soak(house, engines, wish, say))
        return 0

    with tempfile.TemporaryDirectory(prefix="headrace-soak-", ignore_cleanup_errors=True) as folder:
        try:
            with ground(Path(folder), wish) as (house, engines):
                about = machine.describe({name: [pid] for name, pid in house.connection["pids"].items() if pid})
                run_fast(run(house, engines))
        except (StartError, AssertionError) as error:
            say(f"soak: {error}")
            return 2
    return publish(found[0], wish, about, asked)


def publish(found: Found, wish: Wish, about: dict[str, str], asked: argparse.Namespace) -> int:
    """Print the tables and what is against the plan; the exit code."""
    about["command"] = machine.command("scripts/soak", sys.argv[1:])
    words = "\n".join([*(f"- {name}: {value}" for name, value in about.items()), "", *report(found, wish)])
    print(words)
    if asked.page:
        asked.page.write_text(put(asked.page.read_text(), "soak", words))
    if asked.json:
        series = {
            name: [[at - found.began, value] for at, value in values] for name, values in found.watch.series.items()
        }
        asked.json.write_text(json.dumps(series))
    wrong = problems(found, wish, by_memory=not asked.quick)
    print("\n" + ("\n".join(f"Against the plan: {line}" for line in wrong) or "All as planned."))
    return 1 if wrong else 0


def say(line: str) -> None:
    """Progress, apart from the tables."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
