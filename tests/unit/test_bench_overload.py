"""What scripts/faults --overload makes of what it saw: broken promises are told, and figures that were missed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from bench.faults import herd, overload_play
from bench.faults.overload import FULL, HEAD, QUICK, Row
from bench.faults.overload_play import Report
from bench.faults.tenants import LANES, Shares, Waits
from bench.rolling import KINDS
from bench.rolling import Row as Rolled
from bench.tally import Refused, code_of
from runtime.lifecycle import ORDER

AWAY = Refused(503, "overloaded", 700, 2_000_000)


def row(**changes: Any) -> Row:
    values: dict[str, Any] = {"sent": 110, "good": 100, "answered": 100, "refused": [AWAY] * 10, "stays_s": [1.0] * 100}
    return Row(3.0, 10.0, 10.0, 10.0, **(values | changes))


def test_a_level_that_kept_every_promise_has_nothing_to_tell() -> None:
    assert row().broken() == row().missed() == []
    assert len(row().cells()) == len(HEAD)
    assert row().cells()[3:8] == ("100%", "10 x 503 overloaded", "2.0", "2.0", "0.7..0.7")


def test_a_refusal_without_a_code_or_a_time_to_come_back_is_a_broken_promise() -> None:
    for bad in (Refused(503, "", 700, 1), Refused(503, "overloaded", -1, 1), Refused(500, "internal_error", 700, 1)):
        assert "no time to come back" in row(refused=[AWAY] * 9 + [bad]).broken()[0]


def test_a_request_that_was_cut_or_never_ended_is_a_broken_promise() -> None:
    assert "without an answer" in row(good=99, others=Counter(broken=1)).broken()[0]
    assert "of 110 requests 109" in row(good=99).broken()[0]


def test_deadlines_slow_refusals_and_idle_engines_are_figures_that_were_missed() -> None:
    expired = Refused(504, "deadline_exceeded", -1, 1)
    assert row(refused=[AWAY] * 9 + [expired]).missed() == ["1 of 101 admitted runs missed their deadline"]
    assert row(refused=[AWAY] * 9 + [expired]).broken() == []
    assert "1 of 100" in row(stays_s=[11.0]).missed()[0]
    assert "80 ms" in row(refused=[Refused(503, "overloaded", 1, 80_000_000)] * 10).missed()[0]
    assert "50%" in row(answered=50).missed()[0]


def test_a_client_that_never_came_back_is_told_with_the_level_that_broke() -> None:
    lost = herd.Row(10, whole=3, read_on=4, anew=2, lost=Counter({"reading on: 0, 3": 1}))
    report = Report(10.0, [row(good=99)], lost, Waits((200.0, 220.0), (230.0, 300.0), (900.0, 950.0), 0))
    assert len(report.broken()) == 2 and "1 of 10 clients" in report.broken()[1]
    assert report.missed() == ["a tenant at 10x moved the others' p95 wait by 36%, promised is < 20%"]
    assert "Capacity: 10 answers/s" in report.text() and report.plain()["broken"] == report.broken()


def test_shares_that_are_not_as_promised_are_figures_that_were_missed() -> None:
    well = Shares(LANES.title, {"weight 3": 0.66, "weight 1": 0.23, "batch": 0.11}, LANES.parts, LANES.within)
    assert well.missed() == [] and "batch 11.0% (promised 10.0%)" in well.line()
    starved = Shares(LANES.title, {"weight 3": 0.75, "weight 1": 0.25, "batch": 0.0}, LANES.parts, LANES.within)
    assert Report(shares=[well, starved]).missed() == starved.missed()
    assert [words.partition(" had ")[0] for words in starved.missed()] == [
        "weights and lanes: weight 3",
        "weights and lanes: batch",
    ]


def test_a_restart_that_broke_a_promise_is_told_with_its_room() -> None:
    report = Report(rolled=[Rolled("router", 200, failed=2, others=1, ready=Counter({503: 3}), steps=ORDER)])
    assert report.broken() == ["router restarted: 2 of 200 open streams failed: {}"]
    assert "as written" in report.text()


def test_everything_that_was_seen_can_be_written_as_json() -> None:
    waits = Waits((1.0, 2.0), (1.0, 2.0), (1.0, 2.0), 0)
    shares = Shares(LANES.title, dict(LANES.parts), LANES.parts, LANES.within)
    rolled = Rolled("router", 1, errors=Counter(broken=1), ready=Counter({503: 2}))
    lost = herd.Row(2, refused=Counter(cut=1), lost=Counter({"reading on: 0, 3": 1}))
    seen = json.loads(json.dumps(Report(1.0, [row()], lost, waits, [shares], [rolled]).plain()))
    assert seen["rolled"][0]["ready"] == {"503": 2} and seen["herd"]["refused"] == {"cut": 1}


def test_every_part_of_overload_is_played_by_its_name_and_the_short_form_has_two() -> None:
    assert overload_play.parts(QUICK) == ["overload.levels", "overload.herd"]
    assert {f"restart.{kind}" for kind in KINDS} < set(overload_play.parts(FULL))


def test_the_code_of_an_error_is_its_page() -> None:
    assert code_of(b'{"error":{"code":"server_is_overloaded","doc_url":"/docs/errors/overloaded"}}') == "overloaded"
    assert code_of(b"<html>") == code_of(b'{"error":{}}') == ""
