"""The crash matrix: strikes at every stage, server and engine of a fresh Headrace under steady load, and looks from
outside whether every promise held (bench/faults).

Full form: each case by itself, 10,000 runs and more, about 40 minutes. --quick: the same strikes in few loads and short
outages, about two minutes. Exit code 0 when every promise held, 1 when one did not, 2 for a wrong command line or a
Headrace that does not start. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.faults import overload, overload_play, play, routing, routing_play, table
from bench.faults.play import Wish
from bench.loop import run_fast
from console.stack import LAYOUTS
from workers.router.strategies import STRATEGIES

#: Runs of all cases of the matrix together, and how many begin a second.
RUNS, QUICK_RUNS, RATE = 10_000, 1_000, 40.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Strike at everything and see what holds.")
    parser.add_argument("--quick", action="store_true", help="all strikes in few loads: about two minutes")
    parser.add_argument(
        "--layout", choices=list(LAYOUTS), default=play.SPLIT,
        help="a process per room, or all workers in one, which then die together (default split)",
    )  # fmt: skip
    parser.add_argument("--only", action="append", metavar="NAME", help="cases, a family or a pattern; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--runs", type=int, help=f"least number of runs of all cases together (default {RUNS})")
    parser.add_argument("--rate", type=float, default=RATE, help="runs begun a second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument("--show", nargs="+", type=Path, metavar="FILE", help="one table of what --json wrote, and end")
    parser.add_argument(
        "--outage", type=float, metavar="SECONDS", help="for which a server is frozen, in family servers"
    )
    parser.add_argument(
        "--overload", action="store_true", help="instead: more than an engine can answer, and rolling restarts"
    )
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="least_inflight", help="for family routing")
    return parser


def check(asked: argparse.Namespace) -> None:
    """ValueError names an option that cannot be."""
    if asked.rate <= 0 or (asked.runs is not None and asked.runs < 1):
        raise ValueError("--rate and --runs must be more than 0")
    if asked.outage is not None and asked.outage <= 0:
        raise ValueError("--outage must be more than 0")
    if asked.json and not asked.json.parent.is_dir():
        raise ValueError(f"--json: there is no folder {asked.json.parent}")


def known(quick: bool, overloaded: bool = False) -> dict[str, str]:
    """Every case of a form with its family, routing last; overloaded: of what --overload plays instead."""
    if overloaded:
        return {name: name.partition(".")[0] for name in overload_play.parts(_size(quick))}
    return {case.name: case.family for case in play.cases(not quick)} | dict.fromkeys(
        (f"routing.{case.name}" for case in routing.CASES), "routing"
    )


def chosen(names: dict[str, str], wanted: Sequence[str] | None) -> list[str]:
    """The cases asked for. ValueError names what is none."""
    for word in wanted or ():
        if not any(word == family or fnmatchcase(name, word) for name, family in names.items()):
            raise ValueError(f"there is no case or family {word!r}; the same with --list instead of --only names them")
    return [
        name
        for name, family in names.items()
        if not wanted or any(word == family or fnmatchcase(name, word) for word in wanted)
    ]


def matrix(names: Sequence[str], wish: Wish, layout: str) -> list[table.Row]:
    """Play the cases of the matrix on a Headrace of their own."""
    cases = [case for case in play.cases(wish.long, layout) if case.name in names]
    if not cases:
        return []
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as folder, play.ground(Path(folder), layout) as ground:
        return asyncio.run(play.play(ground, cases, wish, say))


def routes(names: Sequence[str], quick: bool, strategy: str) -> list[routing.Row]:
    """Play the cases of routing on another."""
    cases = [case for case in routing.CASES if f"routing.{case.name}" in names]
    if not cases:
        return []
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as folder:
        return routing_play.play(cases, strategy, routing.QUICK if quick else routing.FULL, Path(folder))


def _size(quick: bool) -> overload.Size:
    return overload.QUICK if quick else overload.FULL


def overloaded(names: Sequence[str], quick: bool, file: Path | None) -> int:
    """More than an engine can answer; the exit code. Figures that are missed decide it in the full form only."""
    size = _size(quick)
    with (
        tempfile.TemporaryDirectory(prefix="hr-") as folder,
        overload_play.ground(Path(folder), size) as (house, engine),
    ):
        seen = run_fast(overload_play.play(house, engine, size, say, names))
    print(seen.text())
    if file:
        file.write_text(json.dumps(seen.plain(), indent=1))
    wrong = seen.broken() + ([] if quick else seen.missed())
    print("\n".join(f"Not as promised: {words}" for words in wrong) or "Every promise held.")
    return 1 if wrong else 0


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def report(rows: Sequence[table.Row], routed: Sequence[routing.Row]) -> int:
    """Print the tables and what did not hold; the exit code."""
    if rows:
        print(table.table(rows))
    if routed:
        print(("\n" if rows else "") + routing.table(routed))
    broken = [f"{row.case}: {words}" for row in rows for words in row.broken]
    broken += [f"routing.{row.case.name}: {words}" for row in routed for words in row.broken()]
    print("\n".join(f"Not as promised: {words}" for words in broken) or "Every promise held.")
    return 1 if broken else 0


def show(files: Sequence[Path]) -> int:
    """One table of several runs; cases that were played more than once are added up. The exit code."""
    rows: list[table.Row] = []
    routed: list[routing.Row] = []
    for file in files:
        try:
            value = json.loads(file.read_text())
            rows += table.read(value)
            routed += routing.read(value.get("routing", ()))
        except (OSError, ValueError) as error:
            say(f"scripts/faults: --show {file}: {error}")
            return 2
    return report(table.merged(rows), routed)


def main() -> int:
    asked = parser().parse_args()
    if asked.show:
        return show(asked.show)
    names = known(asked.quick, asked.overload)
    try:
        check(asked)
        picked = chosen(names, asked.only)
    except ValueError as error:
        say(f"scripts/faults: {error}")
        return 2
    if asked.list:
        print("\n".join(f"{name:24} {names[name]}" for name in picked))
        return 0
    if asked.overload:
        return overloaded(picked, asked.quick, asked.json)
    runs = asked.runs if asked.runs is not None else QUICK_RUNS if asked.quick else RUNS
    try:
        rows = matrix(picked, Wish(not asked.quick, runs, asked.rate, asked.outage), asked.layout)
        routed = routes(picked, asked.quick, asked.strategy)
    except (AssertionError, OSError) as error:
        say(f"scripts/faults: Headrace did not start: {str(error).splitlines()[-1] if str(error) else repr(error)}")
        return 2
    if asked.json:
        asked.json.write_text(
            json.dumps(table.plain(rows) | {"routing": [routing.plain(row) for row in routed]}, indent=1)
        )
    return report(rows, routed)


if __name__ == "__main__":
    sys.exit(main())
