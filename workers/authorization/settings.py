"""Settings of authorization: section `authorization` of headrace.yaml."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from base.crypto import digest
from base.settings import Section


class AuthorizationSettings(Section):
    """What the operator decides about authorization."""

    fail: dict[str, Literal["open", "closed"]] = Field(
        default_factory=dict,
        description="Per guard family: what a verdict that never came means. closed: the request is refused with "
        "guardrail_unavailable; open: it goes on unjudged. Families not named here take fail_default.",
    )
    fail_default: Literal["open", "closed"] = Field(
        default="closed", description="What a missing verdict means for families that `fail` does not name."
    )
    reservation_grace_ms: int = Field(
        default=60_000,
        ge=0,
        description="A reservation that nobody settles frees itself this many milliseconds after the deadline.",
    )

    @property
    def policy(self) -> str:
        """The version that verdicts name: a digest of these settings."""
        return digest(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())[:16]
