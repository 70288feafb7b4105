"""Plays overload on a Headrace of its own: the levels, the clients who come back at once, the tenants at the gate, the
restarts of its rooms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bench import rolling, rolling_play
from bench.client import Plan
from bench.faults import herd, overload, tenants
from bench.faults.overload import FULL, Row, Size
from bench.faults.table import aligned
from tests.e2e.house import Engine, House, headrace, scripted_engine, until

WIDE, OPEN = "wide", "open"
_REST_S = 60.0


@dataclass(slots=True)
class Report:
    """Everything that was seen."""

    peak: float = 0.0
    rows: list[Row] = field(default_factory=list)
    herd: herd.Row | None = None
    waits: tenants.Waits | None = None
    shares: list[tenants.Shares] = field(default_factory=list)
    rolled: list[rolling.Row] = field(default_factory=list)

    def broken(self) -> list[str]:
        """Promises that no load excuses."""
        found = [f"{row.times:g}x: {words}" for row in self.rows for words in row.broken()]
        found += self.herd.broken() if self.herd else []
        found += self.waits.broken() if self.waits else []
        return found + [f"{row.kind} restarted: {words}" for row in self.rolled for words in row.broken()]

    def missed(self) -> list[str]:
        """Figures that were not met."""
        found = [f"{row.times:g}x: {words}" for row in self.rows for words in row.missed()]
        found += self.waits.missed() if self.waits else []
        return found + [words for shares in self.shares for words in shares.missed()]

    def text(self) -> str:
        """For people."""
        parts = []
        if self.rows:
            levels = aligned([overload.HEAD, *(row.cells() for row in self.rows)])
            parts.append(f"Capacity: {self.peak:.0f} answers/s\n{levels}")
        parts += [self.herd.line()] if self.herd else []
        parts += self.waits.lines() if self.waits else []
        parts += [shares.line() for shares in self.shares]
        if self.rolled:
            parts.append(rolling.table(rolling.HEAD, [row.cells() for row in self.rolled]))
        return "\n".join(parts)

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "peak": self.peak,
            "levels": [dict(zip(overload.HEAD, row.cells(), strict=True)) for row in self.rows],
            "herd": _plain(self.herd) if self.herd else None,
            "waits": asdict(self.waits) if self.waits else None,
            "shares": [asdict(shares) for shares in self.shares],
            "rolled": [_plain(row) for row in self.rolled],
            "broken": self.broken(),
            "missed": self.missed(),
        }


def _plain(row: herd.Row | rolling.Row) -> dict[str, Any]:
    """As asdict, which cannot copy a Counter."""
    values = ((one.name, getattr(row, one.name)) for one in fields(row))
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values}


@dataclass(frozen=True, slots=True)
class Stand:
    """What each part of the play works with."""

    house: House
    engine: Engine
    size: Size
    say: Callable[[str], None]
    report: Report


Part = Callable[[Stand], Awaitable[None]]


@contextmanager
def ground(folder: Path, size: Size) -> Iterator[tuple[House, Engine]]:
    """A Headrace as a newcomer starts it, before an engine with few slots, with many, and with one for everybody."""
    with scripted_engine() as engine:
        slots = {overload.MODEL: size.slots, WIDE: tenants.Stage().slots, OPEN: max(size.clients, size.rolling.streams)}
        models = [
            {"name": name, "url": engine.url, "slots": number, "private": True, "upstream_model": "mock"}
            for name, number in slots.items()
        ]
        with headrace(folder, "--no-model", settings=json.dumps({"models": models})) as house:
            yield house, engine


async def play(
    house: House, engine: Engine, size: Size, say: Callable[[str], None], names: Sequence[str] = ()
) -> Report:
    """The parts with these names, one after the other; all that belong to the form by default."""
    stand = Stand(house, engine, size, say, Report())
    for name in names or parts(size):
        await PARTS[name](stand)
        await at_rest(house)
    return stand.report


def parts(size: Size) -> list[str]:
    """The names of what belongs to a form."""
    return list(PARTS) if size is FULL else [LEVELS, HERD]


async def _levels(stand: Stand) -> None:
    size, report = stand.size, stand.report
    stand.engine.set(ttft_ms=size.service_ms, itl_ms=0)
    asked = overload.plan(f"{stand.house.base_url}/v1", stand.house.key, size.deadline_s)
    report.peak = await overload.capacity(asked, size)
    for times in size.levels:
        stand.say(f"{times:g} times the capacity of {report.peak:.0f}/s ...")
        report.rows.append(await overload.level(asked, size, report.peak, times))
        await at_rest(stand.house)


async def _herd(stand: Stand) -> None:
    house, clients = stand.house, stand.size.clients
    stand.say(f"{clients} clients come back at once ...")
    stand.engine.set(ttft_ms=50, itl_ms=stand.size.herd_itl_ms)
    key = str(house.new_key(tenant="herd")["token"])
    stand.report.herd = await herd.run(house.base_url, key, OPEN, clients, lambda: house.kill("ingress"))


async def _tenants(stand: Stand) -> None:
    stand.say("one tenant among ten ...")
    light = [_plan(stand, tenant=f"light-{number}") for number in range(tenants.LIGHT)]
    heavy, stage = _plan(stand, tenant="heavy"), tenants.Stage()
    stand.report.waits = await tenants.waits(light, heavy, stage, stand.size.gate_s, lambda: at_rest(stand.house))


async def _weights(stand: Stand) -> None:
    stand.say("weights and lanes ...")
    plans = {
        "weight 3": _plan(stand, tenant="three", weight=3),
        "weight 1": _plan(stand, tenant="one"),
        "batch": _plan(stand, tenant="batch", lane="batch"),
    }
    stand.report.shares.append(await tenants.shares(plans, tenants.LANES, tenants.Stage(), stand.size.gate_s))


async def _priorities(stand: Stand) -> None:
    stand.say("priorities of one key ...")
    key = str(stand.house.new_key(tenant="vain")["token"])
    plans = {
        name: _asked(stand, key, [f"x-headrace-priority: {asked}"] if asked else [])
        for name, asked in (("usual", 0), ("asks for 10", 10), ("asks for -10", -10))
    }
    stand.report.shares.append(await tenants.shares(plans, tenants.PRIORITIES, tenants.Stage(), stand.size.gate_s))


def _plan(stand: Stand, **key: Any) -> Plan:
    return _asked(stand, str(stand.house.new_key(**key)["token"]), [])


def _asked(stand: Stand, token: str, headers: list[str]) -> Plan:
    stage = tenants.Stage()
    stand.engine.set(ttft_ms=stage.ttft_ms, itl_ms=stage.itl_ms)
    return tenants.plan(f"{stand.house.base_url}/v1", WIDE, token, headers, stage)


def _restarted(kind: str) -> Part:
    async def part(stand: Stand) -> None:
        stand.say(f"{kind} is restarted under {stand.size.rolling.streams} streams ...")
        stand.engine.set(ttft_ms=0, itl_ms=stand.size.rolling.itl_ms)
        row = await rolling_play.restart(stand.house, stand.engine, [kind], stand.size.rolling, OPEN)
        stand.report.rolled.append(row)

    return part


LEVELS, HERD = "overload.levels", "overload.herd"
#: What is played, in this order.
PARTS: dict[str, Part] = {
    LEVELS: _levels,
    HERD: _herd,
    "overload.tenants": _tenants,
    "overload.weights": _weights,
    "overload.priorities": _priorities,
    **{f"restart.{kind}": _restarted(kind) for kind in rolling.KINDS},
}


async def at_rest(house: House) -> None:
    """Wait until no run lives."""
    await asyncio.to_thread(until, lambda: house.request("/admin/v1/lag")[1].get("live") == 0, _REST_S)
