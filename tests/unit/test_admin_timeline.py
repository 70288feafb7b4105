"""The timeline of a run: every moment once, in the order in which a run lives, even within one millisecond."""

from __future__ import annotations

from console.admin.routes.requests import timeline
from tests.storage_support import request


def test_moments_of_the_same_millisecond_stand_in_the_order_of_a_runs_life() -> None:
    record = request(1, accepted_ms=5, cleared_ms=5, claimed_ms=5, first_ms=5, ended_ms=5)
    found = [row["event"] for row in timeline(None, record, [])]
    assert found == ["accepted", "cleared", "claimed", "first", "ended"]


def test_a_moment_that_never_came_is_left_out() -> None:
    record = request(1, accepted_ms=5, cleared_ms=0, claimed_ms=0, first_ms=0, ended_ms=6)
    assert [row["event"] for row in timeline(None, record, [])] == ["accepted", "ended"]
