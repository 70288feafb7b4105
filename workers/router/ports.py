"""What the router needs from outside beyond schemas.ports."""

from __future__ import annotations

from typing import Protocol

from schemas.records import EndpointRecord


class Credentials(Protocol):
    """Unwraps provider keys; the router alone has one."""

    def reveal(self, endpoint: EndpointRecord) -> str:
        """The plain key of an endpoint, "" when it has none. ValueError when it cannot be opened."""
        ...
