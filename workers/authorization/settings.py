"""Settings of authorization: section `authorization` of headrace.yaml."""

from __future__ import annotations

import json

from pydantic import Field

from base.crypto import digest
from base.settings import Section


class AuthorizationSettings(Section):
    """What the operator decides about authorization."""

    reservation_grace_ms: int = Field(
        default=60_000,
        ge=0,
        description="A reservation that nobody settles frees itself this many milliseconds after the deadline.",
    )

    @property
    def policy(self) -> str:
        """The version that verdicts name: a digest of these settings."""
        return digest(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())[:16]
