"""Plays the routing cases on a fresh Headrace with two engines, one of which fails."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from bench.faults import routing
from bench.faults.routing import Case, Row, Target
from tests.e2e.house import Engine, House, headrace, scripted_engine, until


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


def play(cases: list[Case], strategy: str, lengths: routing.Lengths, folder: Path) -> list[Row]:
    """Start everything, run the cases one after the other."""
    with scripted_engine() as bad, scripted_engine() as good:
        for engine in (bad, good):
            engine.set(**routing.WELL)
        settings = routing.settings(cases, bad.url, good.url, strategy)
        with headrace(folder, "--no-model", settings=settings) as house:
            ready(house, cases)
            rows = []
            for case in cases:
                print(f"routing.{case.name} ...", file=sys.stderr, flush=True)
                rows.append(asyncio.run(routing.run(case, target_of(house), BadEngine(bad), lengths)))
            return rows
