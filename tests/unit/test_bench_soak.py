"""What a soak decides: who comes, what is ordered, and which growth is real."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from math import inf, isclose

import pytest

from bench import stats
from bench.soak import plan
from bench.soak.plan import Kill, Visit


def visit(kind: plan.Kind, outcome: str, begun: float = 10.0, ended: float = 12.0) -> Visit:
    return Visit(1, kind, begun, ended, outcome)


def test_every_hundred_visits_hold_the_shares_of_the_plan() -> None:
    found = Counter(plan.kind_of(number) for number in range(100))
    assert (found["slow"], found["cut"], found["leaves"], found["blocked"]) == (1, 3, 2, 2)
    assert found["plain"] > found["unary"] > 20


def test_special_visits_are_spread_over_the_hundred() -> None:
    places = [number for number in range(100) if plan.kind_of(number) not in ("plain", "unary")]
    assert all(after - before > 1 for before, after in pairwise(places))


@pytest.mark.parametrize(("kind", "outcome"), plan.ORDERED.items())
def test_what_the_plan_has_is_ordered(kind: plan.Kind, outcome: str) -> None:
    assert plan.is_ordered(visit(kind, outcome), [])


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("plain", "upstream_interrupted"), ("plain", plan.BROKEN), ("cut", plan.WHOLE), ("blocked", plan.WHOLE),
     ("unary", "no_engine"), ("leaves", plan.LATE)],
)  # fmt: skip
def test_what_the_plan_does_not_have_is_an_error(kind: plan.Kind, outcome: str) -> None:
    assert not plan.is_ordered(visit(kind, outcome), [])


def test_only_who_was_open_when_an_engine_died_may_be_interrupted() -> None:
    kills = [Kill(20.0, 20.1, 3)]
    inside = visit("plain", "upstream_interrupted", 19.0, 20.2)
    assert plan.is_ordered(inside, kills)
    assert not plan.is_ordered(visit("plain", "upstream_interrupted", 19.0, 19.9), kills)
    assert not plan.is_ordered(visit("plain", "upstream_interrupted", 20.2, 21.0), kills)
    assert not plan.is_ordered(visit("plain", plan.BROKEN, 19.0, 20.2), kills)


def test_outcomes_are_counted_with_what_is_against_the_plan() -> None:
    visits = [visit("cut", "upstream_interrupted"), visit("plain", plan.WHOLE), visit("plain", "internal_error")]
    assert plan.outcomes(visits, []) == [
        ("plain", plan.WHOLE, 1, 0),
        ("plain", "internal_error", 1, 1),
        ("cut", "upstream_interrupted", 1, 0),
    ]


def test_line_through_points_has_their_slope_and_its_error() -> None:
    exact = stats.fit([(x, 3 * x + 1) for x in range(5)])
    assert isclose(exact.slope, 3)
    assert isclose(exact.error, 0, abs_tol=1e-9)
    bent = stats.fit([(0, 0), (1, 1), (2, 0), (3, 1)])
    assert isclose(bent.slope, 0.2)
    assert isclose(bent.error, (0.8 / 2 / 5) ** 0.5)


def test_line_through_too_few_points_is_not_believed() -> None:
    assert stats.fit([]).error == stats.fit([(1, 1)]).error == stats.fit([(1, 1), (2, 5)]).error == inf


def readings(megabytes_per_hour: float, noise: float, seed: int = 1) -> list[tuple[float, float]]:
    chance = random.Random(seed)
    return [(at, 90 + megabytes_per_hour * at / 3600 + chance.gauss(0, noise)) for at in range(0, 1800, 5)]


def test_steady_growth_is_real_and_noise_is_not() -> None:
    assert plan.grows(readings(20, 0.3))
    assert not plan.grows(readings(0, 0.3))
    assert not plan.grows(readings(1, 0.01)), "below what a day would show"


def test_growth_that_has_ended_was_warming_up() -> None:
    warm = [(at, 90 + min(at, 600) / 60) for at in range(0, 1800, 5)]
    assert plan.slope(warm).slope > 10
    assert not plan.grows(warm)


def test_redis_is_back_within_a_tenth_or_a_megabyte() -> None:
    assert plan.redis_is_back(2_000_000, 2_900_000)
    assert plan.redis_is_back(100_000_000, 109_000_000)
    assert not plan.redis_is_back(100_000_000, 111_000_000)
    assert not plan.redis_is_back(2_000_000, 3_100_000)
