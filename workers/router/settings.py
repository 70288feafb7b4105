"""Settings of the router: section `router` of headrace.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

StrategyName = Literal["least_inflight", "round_robin"]


class RouterSettings(BaseModel):
    """How engines are chosen, waited for and given up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategyName = Field(default="least_inflight", description="How an endpoint of a pool is chosen.")
    strategies: dict[str, StrategyName] = Field(default_factory=dict, description="Another strategy, by pool name.")
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Seconds for name, TCP and TLS of a connection.")
    first_byte_timeout_s: float = Field(
        default=120.0, gt=0, description="Seconds from the sent request to the first byte of the engine's answer."
    )
    idle_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds an engine may be silent between two pieces of its answer."
    )
    total_timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds one call of an engine may take; a run's own deadline may be shorter."
    )
    attempts: int = Field(
        default=3, ge=1, le=10, description="Endpoints tried for one run before its first byte; after it, none."
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
        default=25.0, ge=0, description="The same while storing a frame is slow; no event is held longer than this."
    )
    max_answer_bytes: int = Field(
        default=32 * 1024 * 1024, gt=0, description="Bytes a unary answer of an engine may have."
    )
