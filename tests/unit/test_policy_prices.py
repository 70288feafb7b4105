"""Prices are integers, the most specific one counts; patterns are plain and linear."""

from __future__ import annotations

import fnmatch
import re

from hypothesis import given
from hypothesis import strategies as st

from policy.patterns import any_matches, matches
from policy.prices import Price, cost_micros, price_of
from schemas.events import Usage

PRICE = Price(model="m", prompt=150_000, completion=600_000)


def test_a_million_tokens_cost_their_price() -> None:
    assert cost_micros(PRICE, Usage(prompt_tokens=1_000_000)) == 150_000
    assert cost_micros(PRICE, Usage(completion_tokens=1_000_000)) == 600_000


def test_a_cost_is_rounded_up_once_over_the_whole_request() -> None:
    assert cost_micros(PRICE, Usage(prompt_tokens=1)) == 1
    assert cost_micros(PRICE, Usage(prompt_tokens=1, completion_tokens=1)) == 1
    assert cost_micros(PRICE, Usage()) == 0


def test_without_a_price_a_request_is_free() -> None:
    assert cost_micros(None, Usage(prompt_tokens=5, completion_tokens=5)) == 0


def test_cached_tokens_have_their_own_price_where_one_is_set() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000)
    assert cost_micros(PRICE, usage) == 150_000
    assert cost_micros(Price(model="m", prompt=150_000, completion=0, cached=0), usage) == 90_000


def test_more_cached_than_prompt_tokens_never_make_a_cost_negative() -> None:
    usage = Usage(prompt_tokens=10, cached_tokens=1000)
    assert cost_micros(Price(model="m", prompt=1_000_000, completion=0, cached=0), usage) == 0


@given(*[st.integers(min_value=0, max_value=10**9)] * 4)
def test_a_cost_is_never_below_the_exact_one_and_less_than_a_micro_above(p: int, c: int, a: int, b: int) -> None:
    exact = p * a + c * b
    cost = cost_micros(Price(model="m", prompt=a, completion=b), Usage(prompt_tokens=p, completion_tokens=c))
    assert 0 <= cost * 1_000_000 - exact < 1_000_000


def test_the_most_specific_price_counts() -> None:
    prices = [Price(model=name, prompt=n, completion=n) for n, name in enumerate(("*", "org/*", "org/a*", "org/ab"))]
    for model, expected in (("other", 0), ("org/x", 1), ("org/abc", 2), ("org/ab", 3)):
        found = price_of(prices, model)
        assert found is not None
        assert found.prompt == expected
    assert price_of(prices[1:], "other") is None


def test_a_pattern_without_a_star_is_the_name_itself() -> None:
    assert matches("gpt-4", "gpt-4")
    assert not matches("gpt-4", "gpt-4o")
    assert not matches("gpt-4", "GPT-4")
    assert not matches("gpt.4", "gpt-4")
    assert not matches("", "gpt-4")


def test_no_pattern_matches_nothing() -> None:
    assert not any_matches((), "gpt-4")


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=12))
def test_a_star_is_any_run_of_characters(pattern: str, name: str) -> None:
    assert matches(pattern, name) == (re.fullmatch(fnmatch.translate(pattern), name) is not None)


def test_a_pattern_full_of_stars_is_answered_at_once() -> None:
    assert not matches("*a" * 40 + "b", "a" * 20_000)
