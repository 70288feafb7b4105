"""Settings of the audit: section `audit` of headrace.yaml."""

from __future__ import annotations

from pydantic import Field

from base.settings import Section
from policy.prices import Price


class PriceSettings(Section):
    """What a model costs, in micros of your currency per 1,000,000 tokens: 0.15 per million tokens is 150000."""

    model: str = Field(min_length=1, description="A model's name, or a pattern with `*`. The most specific one holds.")
    prompt: int = Field(ge=0, le=10**12, description="Micros per 1,000,000 prompt tokens.")
    completion: int = Field(ge=0, le=10**12, description="Micros per 1,000,000 completion tokens.")
    cached: int | None = Field(
        default=None, ge=0, le=10**12, description="Micros per 1,000,000 cached prompt tokens; empty: as other ones."
    )


class AuditSettings(Section):
    """What the operator decides about the record."""

    prices: tuple[PriceSettings, ...] = Field(
        default=(), description="The price list. A model without a price is free."
    )

    linger_ms: int = Field(
        default=50,
        ge=0,
        le=5_000,
        description="Milliseconds for which ended requests are gathered into one transaction.",
    )

    sweep_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds between two looks for kept answers whose time is over.",
    )

    def price_list(self) -> tuple[Price, ...]:
        """As policy.prices wants it."""
        return tuple(
            Price(model=item.model, prompt=item.prompt, completion=item.completion, cached=item.cached)
            for item in self.prices
        )
