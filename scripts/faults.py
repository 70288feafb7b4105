"""Makes engines fail under steady load, one way after the other, and shows what it costs the clients.

Starts two scripted engines and a fresh Headrace in a temporary folder, then plays the cases of bench/faults.py: dies,
hangs, slow, full, flaps, breaks. Prints a table; exit code 0 when every promise held, 1 when one did not. Takes about
three minutes, with --quick one. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from bench import faults
from bench.faults import CASES, Case, Row, Target
from tests.e2e.house import Engine, House, headrace, scripted_engine, until
from workers.router.strategies import STRATEGIES


class BadEngine:
    """The engine that fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set(self, **settings: float) -> None:
        self._engine.set(**settings)

    def kill(self) -> None:
        self._engine.process.send_signal(signal.SIGKILL)


def target_of(house: House) -> Target:
    """Where the load goes."""
    port = house.connection["health_ports"]["router"]
    return Target(f"{house.base_url}/v1", house.key, f"http://127.0.0.1:{port}/metrics")


def ready(house: House, cases: list[Case]) -> None:
    """Wait until both endpoints of every case are up."""

    def all_up() -> bool:
        rows = house.request("/admin/v1/deployments")[1]["data"]
        return [row["state"] for row in rows] == ["ready"] * 2 * len(cases)

    until(all_up, 30)


def play(cases: list[Case], strategy: str, lengths: faults.Lengths, folder: Path) -> list[Row]:
    """Start everything, run the cases one after the other."""
    with scripted_engine() as bad, scripted_engine() as good:
        for engine in (bad, good):
            engine.set(**faults.WELL)
        settings = faults.settings(cases, bad.url, good.url, strategy)
        with headrace(folder, "--no-model", settings=settings) as house:
            ready(house, cases)
            rows = []
            for case in cases:
                print(f"{case.name} ...", file=sys.stderr, flush=True)
                rows.append(asyncio.run(faults.run(case, target_of(house), BadEngine(bad), lengths)))
            return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Make engines fail under load and see what it costs the clients.")
    parser.add_argument("--quick", action="store_true", help="short faults: about a minute")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES], help="may be repeated")
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="least_inflight")
    asked = parser.parse_args()
    cases = [case for case in CASES if not asked.only or case.name in asked.only]
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as folder:
        rows = play(cases, asked.strategy, faults.QUICK if asked.quick else faults.FULL, Path(folder))
    print(faults.table(rows))
    broken = [f"{row.case.name}: {words}" for row in rows for words in row.broken()]
    print("\n".join(f"Not as promised: {words}" for words in broken) or "Every promise held.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
