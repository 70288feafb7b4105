"""Budgets beside what was measured."""

from __future__ import annotations

import pytest

from bench import budgets, cells, run
from bench.stats import spread


def test_a_budget_is_judged_by_the_median() -> None:
    found = {("CPU per token, 500 streams x 20/s, all", "us"): spread([70.0, 74.0, 90.0])}
    assert budgets.table(found)[1:] == [
        ["CPU per token, 500 streams x 20/s, all", "us", "<= 75", "74 (70..90)", "held"]
    ]


def test_a_missed_budget_is_told() -> None:
    found = {
        ("short requests/s sustained, 0 errors", "/s"): spread([790.0]),
        ("streams dropped, 500 streams x 20/s", ""): spread([1.0]),
    }
    assert [row[-1] for row in budgets.table(found)[1:]] == ["missed", "missed"]


def test_what_the_bare_path_takes_stands_beside_it() -> None:
    key, other = ("added TTFT at 100/s p50", "ms"), ("ready after start", "s")
    rows = budgets.table({key: spread([4.0]), other: spread([2.0])}, {key: spread([1.5, 2.5, 2.0])})
    assert rows[0] == ["budget", "unit", "limit", "bare", "seen", ""]
    assert [row[2:] for row in rows[1:]] == [["<= 2.50", "2 (1.50..2.50)", "4", "missed"], ["<= 10", "", "2", "held"]]


def test_what_was_not_measured_has_no_row() -> None:
    assert len(budgets.table({("latency at 800/s p50", "ms"): spread([1.0])})) == 1


def test_memory_is_judged_for_every_python_process_and_no_server() -> None:
    names = ("ingress", "authorization+rules+persons+router+audit+provisioner+console", "supervisor", "valkey")
    found = {(f"PSS under load: {name}", "MB"): spread([90.0]) for name in names}
    assert [row[0].removeprefix("PSS under load: ") for row in budgets.table(found)[1:]] == list(names[:3])


def test_every_budget_has_its_cell_in_a_whole_run() -> None:
    said = " ".join(f"{cell.kind} {cell.label}" for cell in cells.full())
    for label in ("rate 800/s", "first_token 100/s", "500 streams x 20/s", "50 streams x 333/s", "1000 streams x 10/s"):
        assert label in said


def test_the_cost_at_the_sustained_rate_is_the_best_rungs() -> None:
    def rung(connections: int, rate: float, cpu_s: float) -> tuple[cells.Cell, dict[str, object]]:
        made = {"completed": 100, "errors": 0, "requests_per_s": rate, "latency_ms": {}, "cpu_s": {"ingress": cpu_s}}
        return cells.ladder(connections, 1), made

    measured = [rung(8, 700.0, 0.2), rung(32, 900.0, 0.1), rung(128, 800.0, 0.3)]
    found = {value.figure: value.value for value in cells.run_of(measured, measured)}
    assert found["short requests/s sustained, 0 errors"] == 900.0
    assert found["CPU per request sustained, all"] == pytest.approx(1.0)


def test_streams_are_asked_for_with_their_pace() -> None:
    assert run.parse(["--streams", "100,1000x10"]).streams == ((100, 20.0), (1000, 10.0))
