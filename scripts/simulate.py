"""Many schedules at once, their table, and the replay of one: see docs/how-to/simulate.md."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.simulation.mutants import MUTANTS
from tests.simulation.play import play
from tests.simulation.shrink import shrunk
from tests.simulation.steps import Schedule, compose
from tests.simulation.world import Bugs

_CHUNK = 50  # schedules that a process plays between two words to its parent
_SHOWN = 5  # failing seeds that are shrunk and printed


@dataclass
class Tally:
    """What plays came to. failed: seed -> what it broke."""

    schedules: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.counts.update(other.counts)
        self.failed.update(other.failed)


def schedule_of(seed: int) -> Schedule:
    """The schedule with that number; the same for ever, until the steps change."""
    return compose(random.Random(seed).randint)


def play_chunk(work: tuple[int, int, str]) -> Tally:
    """Seeds first .. last-1, in a process of its own."""
    first, last, mutant = work
    tally = Tally()
    for seed in range(first, last):
        outcome = play(schedule_of(seed), bugs_of(mutant))
        tally.schedules += 1
        tally.counts.update(outcome.counts)
        if outcome.violations:
            tally.failed[seed] = outcome.violations
    return tally


def bugs_of(mutant: str) -> Bugs:
    """What is planted."""
    return MUTANTS[mutant].bugs if mutant else Bugs()


def play_all(first: int, count: int, jobs: int, mutant: str) -> tuple[Tally, float]:
    """All of them on `jobs` processes, and the seconds it took."""
    started, tally = time.monotonic(), Tally()
    chunks = [(at, min(at + _CHUNK, first + count), mutant) for at in range(first, first + count, _CHUNK)]
    with multiprocessing.Pool(jobs) as pool:
        for part in pool.imap_unordered(play_chunk, chunks):
            tally.add(part)
            show_progress(tally, count, time.monotonic() - started)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return tally, time.monotonic() - started


def show_progress(tally: Tally, count: int, seconds: float) -> None:
    """One line that is written over."""
    if sys.stderr.isatty():
        rate = tally.schedules / max(seconds, 0.001)
        words = f"{tally.schedules} of {count}, {rate:.0f}/s, failed {len(tally.failed)}"
        print(f"\r{words}   ", end="", file=sys.stderr, flush=True)


def table(tally: Tally, seconds: float, jobs: int) -> Iterator[str]:
    """What was played."""
    rows = {"schedules": tally.schedules, **dict(sorted(tally.counts.items()))}
    broken = sum(len(found) for found in tally.failed.values())
    rows |= {"violated invariants": broken, "seconds": round(seconds), "processes": jobs}
    rows["schedules a second"] = round(tally.schedules / max(seconds, 0.001))
    width = max(map(len, rows))
    return (f"{name:<{width}}  {value:>9,}" for name, value in rows.items())


def show_failure(seed: int, found: tuple[str, ...], mutant: str) -> None:
    """What broke, the least that breaks it, and how to see it again."""
    kinds = {line[:2] for line in found}

    def fails(schedule: Schedule) -> bool:
        return bool(kinds & {line[:2] for line in play(schedule, bugs_of(mutant)).violations})

    print(f"\nseed {seed}:", *found, sep="\n  ")
    least = shrunk(schedule_of(seed), fails)
    print("  the least that breaks it:", least.house, *least.steps, sep="\n    ")
    print(f"  replay: scripts/simulate --seed {seed}{f' --mutant {mutant}' if mutant else ''}")


def replay(seed: int, mutant: str) -> int:
    """One schedule with its whole trace."""
    outcome = play(schedule_of(seed), bugs_of(mutant), print)
    print(f"digest {outcome.digest}")
    if outcome.violations:
        show_failure(seed, outcome.violations, mutant)
    else:
        print("every promise held")
    return int(bool(outcome.violations))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description="Plays schedules of faults in virtual time.")
    parser.add_argument("--schedules", type=int, default=100_000, metavar="N", help="how many (100,000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (one a core)")
    parser.add_argument("--seed", type=int, metavar="N", help="replay this one, with its trace")
    parser.add_argument("--mutant", default="", choices=sorted(MUTANTS), help="plant a known bug")
    asked = parser.parse_args()
    if asked.seed is not None:
        return replay(asked.seed, asked.mutant)
    if asked.schedules < 1 or asked.jobs < 1:
        parser.error("--schedules and --jobs must be at least 1")
    tally, seconds = play_all(asked.first, asked.schedules, asked.jobs, asked.mutant)
    print(*table(tally, seconds, asked.jobs), sep="\n")
    for seed in sorted(tally.failed)[:_SHOWN]:
        show_failure(seed, tally.failed[seed], asked.mutant)
    return int(bool(tally.failed))


if __name__ == "__main__":
    sys.exit(main())
