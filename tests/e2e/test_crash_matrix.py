"""Whoever dies or breaks the protocol, under load: every run ends with a whole answer or a coded error, once, and is on
the record as the engine counted it. The short form of scripts/faults, case by case on one Headrace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.faults.cases import Case
from bench.faults.field import Ground
from bench.faults.play import MERGED, Wish, cases, ground, play
from tests.conftest import short_folder


@pytest.fixture(scope="module")
def struck() -> Iterator[Ground]:
    with short_folder() as folder, ground(folder) as ready:
        yield ready


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_router_that_takes_the_checkers_with_it_breaks_no_promise_either() -> None:
    """Where all workers are one process, runs are claimed with their verdicts and begun beside that."""
    [case] = [case for case in cases(long=False, layout=MERGED) if case.name == "router"]
    with short_folder() as folder, ground(folder, MERGED) as joined:
        [row] = await play(joined, [case], Wish(long=False, runs=100, rate=30.0), print)
    assert row.broken == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", cases(long=False), ids=lambda case: case.name)
async def test_every_promise_holds_under_load(struck: Ground, case: Case) -> None:
    [row] = await play(struck, [case], Wish(long=False, runs=100, rate=30.0), print)
    assert row.broken == []
    assert row.runs == sum(row.ends.values()) >= 100
