"""One suite over every strategy: whatever the choice, these things hold."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.router.strategies import STRATEGIES, Strategy

#: (weight, in use) of some endpoints.
CANDIDATES = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=20)
EVERY = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


def apart(candidates: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Weights and use, as strategies take them."""
    return [weight for weight, _ in candidates], [used for _, used in candidates]


@EVERY
@given(candidates=CANDIDATES, turn=st.integers(0, 10**9))
def test_a_choice_is_one_of_the_candidates_and_always_the_same(
    strategy: Strategy, candidates: list[tuple[int, int]], turn: int
) -> None:
    weights, in_use = apart(candidates)
    chosen = strategy(weights, in_use, turn)
    assert 0 <= chosen < len(candidates)
    assert strategy(list(weights), list(in_use), turn) == chosen


@EVERY
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_requests_fall_to_endpoints_by_weight(strategy: Strategy, weights: list[int]) -> None:
    rounds, in_use, counted = 40, [0] * len(weights), Counter[int]()
    for turn in range(rounds * sum(weights)):
        chosen = strategy(weights, in_use, turn)
        in_use[chosen] += 1
        counted[chosen] += 1
    for index, weight in enumerate(weights):
        assert abs(counted[index] - rounds * weight) <= max(weights)


@EVERY
@given(count=st.integers(1, 12))
def test_equal_idle_endpoints_take_turns(strategy: Strategy, count: int) -> None:
    assert sorted(strategy([1] * count, [0] * count, turn) for turn in range(count)) == list(range(count))


@given(candidates=CANDIDATES, turn=st.integers(0, 1000))
def test_least_inflight_takes_the_lightest_load(candidates: list[tuple[int, int]], turn: int) -> None:
    chosen = candidates[STRATEGIES["least_inflight"](*apart(candidates), turn)]
    assert all((chosen[1] + 1) / chosen[0] <= (used + 1) / weight for weight, used in candidates)


@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_round_robin_spreads_a_heavy_endpoint_over_the_cycle(weights: list[int]) -> None:
    cycle = [STRATEGIES["round_robin"](weights, [0] * len(weights), turn) for turn in range(2 * sum(weights))]
    for index, weight in enumerate(weights):
        places = [turn for turn, chosen in enumerate(cycle) if chosen == index]
        gaps = [b - a for a, b in pairwise(places)]
        assert max(gaps, default=0) <= 2 * -(-sum(weights) // weight)


def test_huge_weights_do_not_make_a_huge_cycle() -> None:
    weights = [1_000_003, 7, 999_983]
    chosen = Counter(STRATEGIES["round_robin"](weights, [0, 0, 0], turn) for turn in range(4096))
    assert 1900 < chosen[0] < 2200 and chosen[1] >= 1
