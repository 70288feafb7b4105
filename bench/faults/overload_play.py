"""Plays overload on a Headrace of its own: the levels, the clients who come back at once, the tenants at the gate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.faults import herd, overload, tenants
from bench.faults.overload import FULL, Row, Size
from bench.faults.table import aligned
from tests.e2e.house import Engine, House, headrace, scripted_engine, until

WIDE = "wide"
_TOKENS, _ITL_MS = herd.TOKENS, 200  # of those whose ingress dies: streams of six seconds
_REST_S = 60.0


@dataclass(slots=True)
class Report:
    """Everything that was seen."""

    peak: float = 0.0
    rows: list[Row] = field(default_factory=list)
    herd: herd.Row | None = None
    waits: tenants.Waits | None = None
    shares: dict[str, float] = field(default_factory=dict)

    def broken(self) -> list[str]:
        """Promises that no load excuses."""
        found = [f"{row.times:g}x: {words}" for row in self.rows for words in row.broken()]
        found += self.herd.broken() if self.herd else []
        return found + (self.waits.broken() if self.waits else [])

    def missed(self) -> list[str]:
        """Figures that were not met."""
        found = [f"{row.times:g}x: {words}" for row in self.rows for words in row.missed()]
        return found + (self.waits.missed() if self.waits else [])

    def text(self) -> str:
        """For people."""
        lines = [f"Capacity: {self.peak:.0f} answers/s", aligned([overload.HEAD, *(row.cells() for row in self.rows)])]
        lines += [self.herd.line()] if self.herd else []
        lines += self.waits.lines() if self.waits else []
        if self.shares:
            lines.append("Shares of a full engine: " + ", ".join(f"{k} {v:.0%}" for k, v in self.shares.items()))
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "peak": self.peak,
            "levels": [dict(zip(overload.HEAD, row.cells(), strict=True)) for row in self.rows],
            "herd": asdict(self.herd) if self.herd else None,
            "waits": asdict(self.waits) if self.waits else None,
            "shares": self.shares,
            "broken": self.broken(),
            "missed": self.missed(),
        }


@contextmanager
def ground(folder: Path, size: Size) -> Iterator[tuple[House, Engine]]:
    """A Headrace as a newcomer starts it, before an engine with few slots, and with many."""
    with scripted_engine() as engine:
        models = [
            {"name": name, "url": engine.url, "slots": slots, "private": True, "upstream_model": "mock"}
            for name, slots in ((overload.MODEL, size.slots), (WIDE, tenants.Stage().slots), ("herd", size.clients))
        ]
        with headrace(folder, "--no-model", settings=json.dumps({"models": models})) as house:
            yield house, engine


async def play(house: House, engine: Engine, size: Size, say: Callable[[str], None]) -> Report:
    """All of it, one after the other."""
    report = Report()
    await _levels(house, engine, size, say, report)
    say(f"{size.clients} clients come back at once ...")
    engine.set(ttft_ms=50, itl_ms=_ITL_MS)
    key = str(house.new_key(tenant="herd")["token"])
    report.herd = await herd.run(house.base_url, key, "herd", size.clients, lambda: house.kill("ingress"))
    await asyncio.to_thread(at_rest, house)
    if size is FULL:
        await _gate(house, engine, size, say, report)
    return report


async def _levels(house: House, engine: Engine, size: Size, say: Callable[[str], None], report: Report) -> None:
    engine.set(ttft_ms=size.service_ms, itl_ms=0)
    asked = overload.plan(f"{house.base_url}/v1", house.key, size.deadline_s)
    report.peak = await overload.capacity(asked, size)
    for times in size.levels:
        say(f"{times:g} times the capacity of {report.peak:.0f}/s ...")
        report.rows.append(await overload.level(asked, size, report.peak, times))
        await asyncio.to_thread(at_rest, house)


async def _gate(house: House, engine: Engine, size: Size, say: Callable[[str], None], report: Report) -> None:
    stage = tenants.Stage()
    engine.set(ttft_ms=stage.ttft_ms, itl_ms=stage.itl_ms)
    say("one tenant among ten ...")
    light = [_plan(house, stage, tenant=f"light-{number}") for number in range(tenants.LIGHT)]
    report.waits = await tenants.waits(light, _plan(house, stage, tenant="heavy"), stage, size.gate_s)
    say("weights and lanes ...")
    plans = {
        "weight 3": _plan(house, stage, tenant="three", weight=3),
        "weight 1": _plan(house, stage, tenant="one"),
        "batch": _plan(house, stage, tenant="batch", lane="batch"),
    }
    report.shares = await tenants.shares(plans, stage, size.gate_s)


def _plan(house: House, stage: tenants.Stage, **key: Any) -> Any:
    token = str(house.new_key(**key)["token"])
    return overload.plan(f"{house.base_url}/v1", token, 0, stage.tokens, stream=True, model=WIDE)


def at_rest(house: House) -> None:
    """Wait until no run lives."""
    until(lambda: house.request("/admin/v1/lag")[1].get("live") == 0, _REST_S)
