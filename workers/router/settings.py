"""Settings of the router: section `router` of headrace.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from policy.breaker import Limits

Early = Literal["own", "all", "none"]
StrategyName = Literal["least_inflight", "round_robin", "weighted", "latency", "peak_ewma", "cost", "power_of_two"]


class BreakerSettings(BaseModel):
    """When an endpoint that fails is left alone, and how it comes back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(
        default=5, ge=1, le=100, description="Failures in a row, over all routers, after which an endpoint is left out."
    )
    open_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds it is left out the first time; the nth time in a row n times."
    )
    open_most_s: float = Field(default=300.0, gt=0, le=86_400, description="Longest time it is left out.")
    probe_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds the one request that tries it again has, before another may; should its router die.",
    )

    def limits(self) -> Limits:
        """As policy.breaker wants it."""
        seconds = (self.open_s, self.open_most_s, self.probe_s)
        return Limits(self.failures, *(max(1, round(one * 1000)) for one in seconds))


class RouterSettings(BaseModel):
    """How engines are chosen, waited for and given up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategyName = Field(default="least_inflight", description="How an endpoint of a pool is chosen.")
    strategies: dict[str, StrategyName] = Field(default_factory=dict, description="Another strategy, by pool name.")
    prices: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="For strategy cost: micros per 1,000,000 tokens, by deployment or a pattern with `*`. One that is "
        "not named costs what audit.prices says of its upstream model: the mean of prompt and completion.",
    )
    breaker: BreakerSettings = Field(
        default_factory=BreakerSettings, description="When an endpoint that fails is left out, and how it comes back."
    )
    slow_after_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds without a first byte after which an endpoint gets new requests only if no other can.",
    )
    early: Early = Field(
        default="own",
        description="Engines that are asked while the server still writes down who answers the run, half a millisecond "
        "sooner: `own`, those without a credential, `all`, or `none`. If the run then goes elsewhere, which is rare, "
        "that call was made for nothing and is closed; its provider may charge for it.",
    )
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Seconds for name, TCP and TLS of a connection.")
    first_byte_timeout_s: float = Field(
        default=120.0, gt=0, description="Seconds from the sent request to the first byte of the engine's answer."
    )
    first_byte_timeouts_s: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Another first_byte_timeout_s, by pool name: short for small models."
    )
    idle_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds an engine may be silent between two pieces of its answer."
    )
    total_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds one call of an engine may take; a run's own deadline may be shorter, "
        "and is the only limit in the background.",
    )
    attempts: int = Field(
        default=3, ge=1, le=10, description="Endpoints tried for one run; after its first byte only to continue it."
    )
    continuations: int = Field(
        default=3,
        ge=0,
        le=20,
        description="How often an answer that broke off may be continued, where its engines can.",
    )
    retry_share: float = Field(
        default=0.2, ge=0, le=1, description="Retries allowed as a share of the runs of the last retry_window_s."
    )
    retry_floor: int = Field(default=10, ge=0, description="Retries allowed in a window however few runs there were.")
    retry_window_s: float = Field(default=10.0, gt=0, description="Seconds after which a run no longer earns retries.")
    coalesce_ms: float = Field(
        default=10.0, ge=0, description="Least milliseconds between two frames of a run; the first two go out at once."
    )
    coalesce_max_ms: float = Field(
        default=25.0,
        ge=0,
        description="Most milliseconds between two readings of an engine that is faster than its frames leave; these"
        " come up to four fifths of it apart while many are stored, or slowly.",
    )
    max_answer_bytes: int = Field(
        default=32 * 1024 * 1024, gt=0, description="Bytes a unary answer of an engine may have."
    )
