"""Engines that hang and engines that die under load: no request fails while another engine is well (scripts/faults)."""

from __future__ import annotations

from bench.faults.routing import CASES, Lengths
from bench.faults.routing_play import play
from tests.conftest import short_folder

SHORT = Lengths(rate=15, before_s=0.5, fault_s=3.5, after_s=0.5)


def test_no_request_fails_while_another_engine_is_well() -> None:
    cases = [case for case in CASES if case.name in ("hangs", "dies")]
    with short_folder() as folder:
        rows = play(cases, "peak_ewma", SHORT, folder)
    assert [(row.case.name, row.broken()) for row in rows] == [("hangs", []), ("dies", [])]
    assert all(row.requests > 30 for row in rows)
