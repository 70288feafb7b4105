"""One suite over every strategy: whatever the choice, these things hold."""

from collections import Counter
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.router.settings import StrategyName
from workers.router.strategies import STRATEGIES, Strategy
from workers.router.strategies.candidate import Candidate, Draw

SECONDS = st.one_of(st.just(0.0), st.floats(0.001, 120.0))
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        weight=st.integers(1, 50),
        in_use=st.integers(0, 20),
        ttft_s=SECONDS,
        peak_s=SECONDS,
        seen_at=st.floats(0, 100.0),
        price=st.integers(0, 10**7),
        waiting_since=st.one_of(st.just(inf), st.floats(0, 100.0)),
    ),
    min_size=1,
    max_size=20,
)
DRAWS = st.builds(
    Draw, turn=st.integers(0, 10**9), chance=st.floats(0, 1, exclude_max=True), now=st.floats(100.0, 10_000.0)
)
EVERY = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
#: Strategies whose every choice is by chance: they are even in the long run only.
BY_CHANCE = {"weighted", "power_of_two"}
_EVEN = {name: strategy for name, strategy in STRATEGIES.items() if name not in BY_CHANCE}
EVEN = pytest.mark.parametrize("strategy", _EVEN.values(), ids=_EVEN)
_GOLDEN = 0.6180339887498949


def spread(turn: int) -> Draw:
    """A draw whose chance is spread evenly over the turns."""
    return Draw(turn, turn * _GOLDEN % 1.0, now=100.0)


def equal(weights: list[int], in_use: list[int] | None = None) -> list[Candidate]:
    """Candidates that differ in weight and load only."""
    used = in_use or [0] * len(weights)
    return [
        Candidate(weight, load, ttft_s=0.2, peak_s=0.2, seen_at=100.0, price=5)
        for weight, load in zip(weights, used, strict=True)
    ]


def test_the_settings_know_every_strategy() -> None:
    assert set(StrategyName.__args__) == set(STRATEGIES)  # type: ignore[attr-defined]


@EVERY
@given(candidates=CANDIDATES, draw=DRAWS)
def test_a_choice_is_one_of_the_candidates_and_always_the_same(
    strategy: Strategy, candidates: list[Candidate], draw: Draw
) -> None:
    before = repr(candidates)
    chosen = strategy(candidates, draw)
    assert 0 <= chosen < len(candidates)
    assert strategy(list(candidates), draw) == chosen
    assert repr(candidates) == before, "a strategy only reads"


@EVERY
@given(draw=DRAWS, weight=st.integers(1, 10**9), load=st.integers(0, 10**6))
def test_a_single_candidate_is_chosen(strategy: Strategy, draw: Draw, weight: int, load: int) -> None:
    assert strategy([Candidate(weight, load)], draw) == 0


@EVEN
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_requests_fall_to_endpoints_by_weight(strategy: Strategy, weights: list[int]) -> None:
    counted = filled(strategy, weights, rounds=40)
    for index, weight in enumerate(weights):
        assert abs(counted[index] - 40 * weight) <= max(weights)


@EVERY
@settings(max_examples=25)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_in_the_long_run_every_endpoint_gets_its_share(strategy: Strategy, weights: list[int]) -> None:
    counted = filled(strategy, weights, rounds=60)
    for index, weight in enumerate(weights):
        assert abs(counted[index] - 60 * weight) <= 2 * max(weights) + 0.1 * 60 * weight


def filled(strategy: Strategy, weights: list[int], rounds: int) -> Counter[int]:
    """How often each was chosen while the requests stay where they are."""
    candidates, counted = equal(weights), Counter[int]()
    for turn in range(rounds * sum(weights)):
        chosen = strategy(candidates, spread(turn))
        candidates[chosen].in_use += 1
        counted[chosen] += 1
    return counted


@EVEN
@given(count=st.integers(1, 12))
def test_equal_idle_endpoints_take_turns(strategy: Strategy, count: int) -> None:
    candidates = equal([1] * count)
    assert sorted(strategy(candidates, spread(turn)) for turn in range(count)) == list(range(count))


@EVERY
@settings(max_examples=40)
@given(candidates=CANDIDATES)
def test_an_endpoint_that_was_slow_once_is_tried_again(strategy: Strategy, candidates: list[Candidate]) -> None:
    """With nothing in flight and equal prices nobody starves: what is known of a slow endpoint fades."""
    for one in candidates:
        one.in_use, one.price, one.waiting_since, one.weight = 0, 0, inf, 1
    chosen = {strategy(candidates, Draw(turn, turn * _GOLDEN % 1.0, now=100_000.0)) for turn in range(400)}
    assert chosen == set(range(len(candidates)))


@given(candidates=CANDIDATES, draw=DRAWS)
def test_least_inflight_takes_the_lightest_load(candidates: list[Candidate], draw: Draw) -> None:
    chosen = candidates[STRATEGIES["least_inflight"](candidates, draw)]
    assert all((chosen.in_use + 1) / chosen.weight <= (one.in_use + 1) / one.weight for one in candidates)


@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_round_robin_spreads_a_heavy_endpoint_over_the_cycle(weights: list[int]) -> None:
    candidates = equal(weights)
    cycle = [STRATEGIES["round_robin"](candidates, Draw(turn)) for turn in range(2 * sum(weights))]
    for index, weight in enumerate(weights):
        places = [turn for turn, chosen in enumerate(cycle) if chosen == index]
        gaps = [b - a for a, b in pairwise(places)]
        assert max(gaps, default=0) <= 2 * -(-sum(weights) // weight)


def test_huge_weights_do_not_make_a_huge_cycle() -> None:
    candidates = equal([1_000_003, 7, 999_983])
    chosen = Counter(STRATEGIES["round_robin"](candidates, Draw(turn)) for turn in range(4096))
    assert 1900 < chosen[0] < 2200 and chosen[1] >= 1


@given(candidates=CANDIDATES, draw=DRAWS)
def test_cost_takes_the_cheapest_known_price_and_then_the_lightest_load(
    candidates: list[Candidate], draw: Draw
) -> None:
    chosen = candidates[STRATEGIES["cost"](candidates, draw)]
    known = [one.price for one in candidates if one.price]
    assert chosen.price == min(known, default=0)
    same = [one for one in candidates if one.price == chosen.price]
    assert all((chosen.in_use + 1) / chosen.weight <= (one.in_use + 1) / one.weight for one in same)


@given(draw=DRAWS, quick=st.floats(0.01, 1.0), times=st.floats(2.0, 100.0), load=st.integers(0, 30))
def test_latency_keeps_away_from_the_slow_whatever_the_load(draw: Draw, quick: float, times: float, load: int) -> None:
    slow = Candidate(ttft_s=quick * times + 0.1, seen_at=draw.now)
    assert STRATEGIES["latency"]([slow, Candidate(in_use=load, ttft_s=quick, seen_at=draw.now)], draw) == 1


@given(turn=st.integers(0, 100), loads=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_latency_takes_the_lighter_of_two_that_are_about_equally_quick(turn: int, loads: tuple[int, int]) -> None:
    one, other = Candidate(in_use=loads[0], ttft_s=0.2), Candidate(in_use=loads[1], ttft_s=0.22)
    chosen = STRATEGIES["latency"]([one, other], Draw(turn))
    assert loads[chosen] == min(loads)


@given(turn=st.integers(0, 100), seconds=st.floats(0.01, 10.0), load=st.integers(0, 10))
def test_peak_ewma_weighs_expected_time_against_those_in_line(turn: int, seconds: float, load: int) -> None:
    quick = Candidate(in_use=load, peak_s=seconds, seen_at=0.0)
    slow = Candidate(in_use=0, peak_s=seconds * (load + 1) * 1.01, seen_at=0.0)
    assert STRATEGIES["peak_ewma"]([slow, quick], Draw(turn)) == 1
    slow.peak_s = seconds * (load + 1) * 0.99
    assert STRATEGIES["peak_ewma"]([slow, quick], Draw(turn)) == 0


@pytest.mark.parametrize("name", ["latency", "peak_ewma"])
def test_an_engine_that_hangs_gets_slower_before_any_timeout(name: str) -> None:
    hanging = Candidate(in_use=1, ttft_s=0.1, peak_s=0.1, seen_at=0.0, waiting_since=0.0)
    other = Candidate(in_use=2, ttft_s=0.1, peak_s=0.1, seen_at=0.5)
    assert STRATEGIES[name]([hanging, other], Draw(0, now=0.05)) == 0
    assert STRATEGIES[name]([hanging, other], Draw(0, now=0.5)) == 1


@pytest.mark.parametrize("name", ["latency", "peak_ewma"])
def test_an_endpoint_without_history_gets_one_request_to_be_known_by(name: str) -> None:
    new, known = Candidate(), Candidate(in_use=3, ttft_s=0.1, peak_s=0.1, seen_at=0.0)
    assert STRATEGIES[name]([new, known], Draw(0)) == 0
    new.in_use, new.waiting_since = 1, 0.0
    assert STRATEGIES[name]([new, known], Draw(0)) == 1


@given(candidates=CANDIDATES, draw=DRAWS)
def test_power_of_two_never_takes_the_heaviest_of_many(candidates: list[Candidate], draw: Draw) -> None:
    loads = [(one.in_use + 1) / one.weight for one in candidates]
    chosen = STRATEGIES["power_of_two"](candidates, draw)
    if loads.count(max(loads)) == 1 and len(loads) > 1:
        assert loads[chosen] < max(loads)


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_weighted_takes_the_chance_by_its_place_on_the_line(weights: list[int]) -> None:
    total = sum(weights)
    chosen = Counter(STRATEGIES["weighted"](equal(weights), Draw(0, (point + 0.5) / total)) for point in range(total))
    assert [chosen[index] for index in range(len(weights))] == weights
