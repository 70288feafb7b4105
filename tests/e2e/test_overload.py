"""More is asked than an engine can answer, and an ingress dies under its clients: the short form of
`scripts/faults --overload`. Figures are not looked at, only that everybody has an answer or a refusal that says when to
come back."""

from __future__ import annotations

from bench.faults import overload_play
from bench.faults.overload import QUICK
from bench.loop import run_fast
from tests.conftest import short_folder


def test_everybody_is_answered_or_told_when_to_come_back() -> None:
    with short_folder() as folder, overload_play.ground(folder, QUICK) as (house, engine):
        seen = run_fast(overload_play.play(house, engine, QUICK, print))
    (row,) = seen.rows
    assert seen.broken() == []
    assert row.turned_away and row.good, "nothing was refused, or nothing answered"
    assert seen.herd is not None and seen.herd.read_on, "nobody had to come back"
