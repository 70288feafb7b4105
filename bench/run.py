"""Measures Headrace against its own engine, and beside other gateways: `scripts/bench [--quick]`.

Each run starts a fresh Headrace; every cell is measured for every peer before the next cell begins, in turning order.
The tables show median and spread over the runs. `--plot` shows how cost grows along one axis at a time instead. Exit
code 0, 1 when any answer was wrong or lost, 2 when something did not start. Timing never decides the exit code.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from base.ports import free_port
from bench import budgets, machine, report, routing
from bench import cells as catalogue
from bench.bare.house import Bare
from bench.cells import Cell, Value
from bench.growth import play as growth
from bench.growth.axes import NAMES as AXES
from bench.measure import Bench, MockEngine, memory_of
from bench.peers import Headrace, Peer, StartError, beside, wait_for_answer
from bench.stats import Spread
from console.stack import LAYOUTS

#: Seconds an embedded Headrace may take to come up before the run is given up.
START_LIMIT = 90.0
#: Shares of a core above which a cell is named in the remarks.
BUSY_HARNESS, BUSY_OTHERS = 0.8, 0.3
#: Kinds of cells.
KINDS = ("rate", "ladder", "first_token", "flow", "hold", "relay", "routing")


class Session:
    """All runs: what was asked for, and what was found."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self._asked, self._folder = asked, folder
        self._cells = chosen_cells(asked)
        self._beside = [beside(text) for text in asked.beside]
        self.values: dict[str, list[list[Value]]] = {}
        self.results: list[dict[str, Any]] = []
        self.about: dict[str, str] = {}

    def run(self) -> None:
        """Measure everything; StartError when something does not come up."""
        mock = MockEngine(self._folder / "mock.log", self._asked.harness_cores, self._asked.engine_port)
        try:
            for number in range(self._asked.runs):
                self._one_run(number, mock)
        finally:
            mock.program.stop(5)

    def _one_run(self, number: int, mock: MockEngine) -> None:
        direct = Peer("direct", mock.url)
        with ExitStack() as stack:
            started: list[Peer] = []
            for name, words in wanted(self._asked).items():
                started.append(stack.enter_context(self._headrace(name, words, number, mock.url)))
            bare = [stack.enter_context(self._bare(number, mock.url))] if self._asked.bare else []
            peers = [direct, *started, *bare, *self._beside]
            self.about = machine.describe(started[0].groups if started else {})
            for peer in self._beside:
                wait_for_answer(peer, 20)
            self._measure_all(number, Bench(mock, peers, self._asked.harness_cores), peers)

    @contextmanager
    def _headrace(self, name: str, words: Sequence[str], number: int, engine_url: str) -> Iterator[Peer]:
        asked = self._asked
        data = self._folder / f"run{number} {name}".replace(" ", "-")
        headrace = Headrace(name, asked.headrace, data, free_port(), engine_url, words, asked.gateway_cores)
        try:
            peer, said, answered = headrace.ready(START_LIMIT)
            say(f"run {number + 1}/{asked.runs}: {name} ready after {said:.1f} s")
            ready = [Value("ready after start", "s", said), Value("first answer after start", "s", answered)]
            self._keep(peer.name, number, ready + catalogue.memory("when idle", memory_of(peer.groups)))
            yield peer
        finally:
            headrace.stop()

    @contextmanager
    def _bare(self, number: int, engine_url: str) -> Iterator[Peer]:
        bare = Bare(self._folder / f"run{number}-bare", free_port(), engine_url, self._asked.gateway_cores)
        try:
            yield bare.ready(START_LIMIT)
        finally:
            bare.stop()

    def _measure_all(self, number: int, bench: Bench, peers: Sequence[Peer]) -> None:
        found: dict[str, list[tuple[Cell, dict[str, Any]]]] = {peer.name: [] for peer in peers}
        for cell in self._cells:
            for peer in peers if number % 2 == 0 else peers[::-1]:
                result = bench.measure(cell, peer)
                self.results.append({"run": number, **result})
                found[peer.name].append((cell, result))
                say(f"run {number + 1}/{self._asked.runs}: {cell.name}, {peer.name}: {catalogue.headline(result)}")
        for peer in peers:
            self._keep(peer.name, number, catalogue.run_of(found[peer.name], found["direct"]))

    def _keep(self, peer: str, number: int, values: list[Value]) -> None:
        runs = self.values.setdefault(peer, [])
        if len(runs) == number:
            runs.append([])
        runs[number] = [*runs[number], *values]


def chosen_cells(asked: argparse.Namespace) -> list[Cell]:
    """The cells that the command line asks for."""
    cells = catalogue.quick() if asked.quick else catalogue.full(asked.window, asked.streams)
    return [cell for cell in cells if not asked.only or cell.kind in asked.only]


def wanted(asked: argparse.Namespace) -> dict[str, list[str]]:
    """Every Headrace that is to be measured: its column and the words it is started with."""
    if asked.without_headrace:
        return {}
    if not asked.layouts:
        return {"headrace": list(asked.up_arg)}
    return {f"headrace {layout}": [*asked.up_arg, "--processes", layout] for layout in asked.layouts}


def remarks(results: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know before believing a figure: a busy harness, a busy machine, a rate not reached, errors."""
    tests: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        ("the harness itself was near its limit", lambda r: _harness(r) > BUSY_HARNESS * r["window_s"]),
        ("other processes took more than 30 % of a core", lambda r: r["others_cpu_s"] > BUSY_OTHERS * r["window_s"]),
        ("not all offered requests could be sent", lambda r: r["unsent"] > 0),
        ("the engine was left with answers that nobody waited for", lambda r: r["engine"]["live"] > 0),
        ("answers were wrong or lost", lambda r: r["errors"] > 0),
    ]
    lines = []
    for words, test in tests:
        hit = [f"run {result['run'] + 1} {result['cell']} {result['peer']}" for result in results if test(result)]
        if hit:
            lines.append(
                f"{words} in {len(hit)} of {len(results)} cells: {'; '.join(hit[:6])}{' ...' * (len(hit) > 6)}"
            )
    return lines + [f"for example: {example}" for example in _examples(results)]


def _harness(result: dict[str, Any]) -> float:
    """CPU seconds of the busier of load and engine."""
    return max(float(result["load_cpu_s"]), float(result["mock_cpu_s"]))


def _examples(results: Sequence[dict[str, Any]]) -> list[str]:
    seen: dict[str, str] = {}
    for result in results:
        for kind, count in result["errors_by_kind"].items():
            example = result["examples"].get(kind, "")
            seen.setdefault(f"{result['peer']} {kind}", f"{count} x {kind} from {result['peer']}: {example}")
    return list(seen.values())


def say(line: str) -> None:
    """Progress, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def publish(session: Session, asked: argparse.Namespace) -> None:
    """Print the tables, and write the file that was asked for."""
    notes = remarks(session.results)
    rows = report.table(session.values)
    if asked.markdown:
        print("\n".join(f"- {name}: {value}" for name, value in session.about.items()))
        print(f"\n{report.markdown(rows)}\n")
    else:
        print("\n".join(f"{name + ':':10} {value}" for name, value in session.about.items()))
        print(f"\n{report.text(rows)}\n")
    print_budgets(session, asked)
    print("\n".join(f"Note: {note}" for note in notes))
    if asked.json:
        data = {"about": session.about, "remarks": notes, "figures": report.plain(session.values),
                "cells": session.results}  # fmt: skip
        Path(asked.json).write_text(json.dumps(data, indent=1) + "\n")


def print_budgets(session: Session, asked: argparse.Namespace) -> None:
    """The budgets whose figures were measured, of each Headrace; nothing for a smoke test."""
    collected = report.collect(session.values)
    for peer in wanted(asked) if not asked.quick else ():
        rows = budgets.table(_of(peer, collected), _of("bare", collected))
        print(f"{peer}, judged by the median:\n\n{(report.markdown if asked.markdown else report.text)(rows)}\n")


def _of(peer: str, collected: Mapping[tuple[str, str], Mapping[str, Spread]]) -> budgets.Found:
    return {key: found[peer] for key, found in collected.items() if peer in found}


def cores(text: str) -> frozenset[int]:
    """Core numbers from `0,1`."""
    return frozenset(int(part) for part in text.split(","))


def held(text: str) -> tuple[tuple[int, float], ...]:
    """Streams and tokens a second of each from `100,1000x10`; ValueError."""
    pairs = [part.partition("x") for part in text.split(",")]
    return tuple((int(count), float(pace or 20)) for count, _, pace in pairs)


def layouts(text: str) -> tuple[str, ...]:
    """Names of layouts from `merged,split`; ArgumentTypeError for another one."""
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in LAYOUTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(LAYOUTS)}")
    return names


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short run of small cells: a smoke test")
    parser.add_argument("--runs", type=int, help=f"5; with --plot {growth.RUNS}")
    parser.add_argument("--plot", type=Path, nargs="?", const=machine.ROOT / "docs/why", metavar="FOLDER",
                        help="how cost grows, axis by axis: write pictures and tables there [docs/why]")  # fmt: skip
    parser.add_argument("--note", default="", help="with --plot: words to stand beside the figures")
    parser.add_argument("--window", type=float, default=catalogue.WINDOW, help="seconds measured in each cell")
    parser.add_argument("--streams", type=held, default=catalogue.HELD, metavar="N[xRATE],...",
                        help="how many streams to hold, tokens a second of each [100,500,1000x10,50x333]; x20 unless "
                        "said")  # fmt: skip
    parser.add_argument("--only", action="append", default=[],
                        choices=list(dict.fromkeys([*KINDS, *AXES])),
                        help=f"kinds of cells: {', '.join(KINDS)} (microseconds of a router's choice, nothing starts); "
                        f"with --plot axes: {', '.join(AXES)}")  # fmt: skip
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=URL[;...]",
                        help="another gateway; options: key=, model=, header=, pids=web:1+redis:2")  # fmt: skip
    parser.add_argument("--bare", action="store_true",
                        help="a column for the same path with nothing in it: what it costs by itself")  # fmt: skip
    parser.add_argument("--engine-port", type=int, default=0,
                        help="where the engine (model mock) listens, for those beside [any free one]")  # fmt: skip
    parser.add_argument("--without-headrace", action="store_true", help="only direct and those beside it")
    parser.add_argument(
        "--headrace", type=Path, default=machine.ROOT / ".venv/bin/headrace", help="the program to start"
    )
    parser.add_argument("--up-arg", action="append", default=[], help="a further word for `headrace up`, repeatable")
    parser.add_argument("--layouts", type=layouts, default=(), metavar="merged,split",
                        help="a Headrace for each of these layouts, a column each; all run all the time")  # fmt: skip
    parser.add_argument("--gateway-cores", type=cores, help="pin Headrace to these cores, for example 0")
    parser.add_argument("--harness-cores", type=cores, help="pin engine and load to these cores, for example 1")
    parser.add_argument("--json", metavar="FILE", help="write every value of every run there")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    asked = parser.parse_args(arguments)
    asked.runs = 1 if asked.quick else asked.runs or (growth.RUNS if asked.plot else 5)
    if asked.plot and asked.bare:
        parser.error("--bare is a column of a run; --plot has none")
    if strange := [name for name in asked.only if name not in (AXES if asked.plot else KINDS)]:
        known = f"an axis; known are {', '.join(AXES)}" if asked.plot else "a kind of cell; axes need --plot"
        parser.error(f"--only {strange[0]}: it is not {known}")
    return asked


def main() -> int:
    """The program behind scripts/bench."""
    asked = parse()
    if "routing" in asked.only:
        routing.main(asked.markdown)
        if set(asked.only) == {"routing"}:
            return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit unwinds, so what was started is stopped
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as folder:
        try:
            if asked.plot:
                growth.Growth(asked, Path(folder), free_port, say).run(asked.plot)
                return 0
            session = Session(asked, Path(folder))
            session.run()
        except (StartError, ValueError) as error:
            say(f"bench: {error}")
            return 2
    publish(session, asked)
    return 1 if any(result["errors"] for result in session.results) else 0


if __name__ == "__main__":
    sys.exit(main())
