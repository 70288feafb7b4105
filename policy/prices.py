"""Tokens to money in integers: prices are micros of the currency per 1,000,000 tokens, costs are micros.

$0.15 per million tokens is 150000. Nothing is a float, so sums over any number of requests are exact. A cost is
rounded up once, over the whole request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policy.patterns import literal_length, matches
from schemas.events import Usage

PER = 1_000_000  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs. model: a name or a pattern with `*`. prompt, completion, cached: micros per 1,000,000 tokens
    (>= 0); cached None = cached prompt tokens cost as much as the others."""

    model: str
    prompt: int
    completion: int
    cached: int | None = None


def price_of(prices: Sequence[Price], model: str) -> Price | None:
    """The most specific price that fits: the exact name, else the pattern with most letters, else the earlier one."""
    fitting = [price for price in prices if matches(price.model, model)]
    return max(fitting, key=lambda price: literal_length(price.model), default=None)


def cost_micros(price: Price | None, usage: Usage) -> int:
    """The cost of one request, rounded up to a whole micro. 0 without a price.

    cached_tokens are part of prompt_tokens, as engines report them; more cached than prompt counts as all of it."""
    if price is None:
        return 0
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    cached_price = price.prompt if price.cached is None else price.cached
    total = (usage.prompt_tokens - cached) * price.prompt + cached * cached_price
    total += usage.completion_tokens * price.completion
    return -(-total // PER)
