"""Plays what Headrace promises about restarts, poison, hostile clients and outages, and prints what was seen.

    rolling   each kind of process is restarted with 200 open streams                    (about 2 minutes)

Starts a scripted engine and a fresh Headrace with a process per room in a temporary folder. Exit code 0 when every
promise held, 1 when one did not. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import rolling
from tests.e2e.house import Engine, House, Joined, another_process, headrace, scripted_engine


class Leaving:
    """A joined process that is asked to end."""

    def __init__(self, joined: Joined) -> None:
        self._process = joined.process

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, seconds: float) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self._process.pid} did not end within {seconds} s") from None


@contextmanager
def split_house(folder: Path, engine: Engine) -> Iterator[House]:
    """A process per room."""
    with headrace(folder, "--processes", "split", "--no-model", engines={"mock": engine.url}) as house:
        yield house


def restart(house: House, engine: Engine, kinds: Sequence[str], size: rolling.Size) -> rolling.Row:
    """A process of these rooms joins, holds its share of the streams, and is stopped."""
    with another_process(house, kinds) as joined:
        url = f"{house.base_url}/v1"
        held_url = door_of(joined) if "ingress" in kinds else url
        doors = rolling.Doors(held_url, url, "mock", house.key, lambda: engine.stats()["live"])
        return asyncio.run(rolling.run(", ".join(kinds), doors, Leaving(joined), size))


def roll(folder: Path) -> list[rolling.Row]:
    """Restart one process of each kind under open streams."""
    size = rolling.FULL
    with scripted_engine("--itl-ms", str(size.itl_ms)) as engine, split_house(folder, engine) as house:
        rows = []
        for kind in rolling.KINDS:
            say(f"{kind} ...")
            rows.append(restart(house, engine, [kind], size))
        return rows


def door_of(joined: Joined) -> str:
    """The base URL of a joined ingress."""
    found = re.search(r"ingress at (\S+?)[;,)]", joined.log.read_text())
    assert found is not None, joined.log.read_text()
    return f"{found[1]}/v1"


def say(line: str) -> None:
    """Progress, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def play_rolling(folder: Path) -> list[str]:
    rows = roll(folder)
    print(rolling.table(rolling.HEAD, [row.cells() for row in rows]))
    return [f"{row.kind}: {words}" for row in rows for words in row.broken()]


PLAYS: Mapping[str, Callable[[Path], list[str]]] = {"rolling": play_rolling}


def main() -> int:
    parser = argparse.ArgumentParser(description="Play what is promised and see what happens.")
    parser.add_argument("plays", nargs="*", metavar="PLAY", help=f"of {', '.join(PLAYS)}; all by default")
    asked = parser.parse_args()
    if unknown := set(asked.plays) - set(PLAYS):
        parser.error(f"no such play: {', '.join(sorted(unknown))}")
    broken = []
    for name in asked.plays or PLAYS:
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="headrace-promises-") as folder:
            broken += [f"{name}: {words}" for words in PLAYS[name](Path(folder))]
    print("\n" + ("\n".join(f"Not as promised: {words}" for words in broken) or "Every promise held."))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
