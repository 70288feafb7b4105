"""The short form of scripts/soak: what it says of memory is for longer ones."""

from __future__ import annotations

from pathlib import Path

from bench.loop import run_fast
from bench.soak import plan
from bench.soak.play import QUICK, Engines, Found, ground, problems, report, soak
from tests.e2e.house import House


def test_visitors_of_every_kind_come_to_what_is_ordered_while_engines_are_killed(tmp_path: Path) -> None:
    found: list[Found] = []

    async def play(house: House, engines: Engines) -> int:
        found.append(await soak(house, engines, QUICK, print))
        return 0

    with ground(tmp_path, QUICK) as (house, engines):
        run_fast(play(house, engines))
    assert problems(found[0], QUICK, by_memory=False) == []
    assert {visit.kind for visit in found[0].guests.visits} == set(plan.ORDERED)
    assert len(found[0].kills) >= 2
    assert any(line.startswith("| ingress |") for line in report(found[0], QUICK))
