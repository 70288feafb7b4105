"""What a strategy knows of an endpoint."""

from __future__ import annotations

from typing import NamedTuple


class Candidate(NamedTuple):
    """An endpoint with a free slot. weight >= 1; in_use: requests this process has there."""

    weight: int
    in_use: int
