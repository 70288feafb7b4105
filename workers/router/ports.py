"""What the router needs from outside beyond schemas.ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from base.ewma import Latency, Sample
from policy.breaker import Breaker
from schemas.records import EndpointRecord


class Credentials(Protocol):
    """Unwraps provider keys; the router alone has one."""

    def reveal(self, endpoint: EndpointRecord) -> str:
        """The plain key of an endpoint, "" when it has none. ValueError when it cannot be opened."""
        ...


class Breakers(Protocol):
    """policy.breaker for every endpoint, shared by all routers. state/breaker.py.

    Times in what is returned are milliseconds of this process's monotonic clock. `opens`: what the endpoint's breaker
    said when the call began. All raise Unavailable."""

    async def failed(self, endpoint: str, opens: int) -> Breaker:
        """A call failed; the breaker after it."""
        ...

    async def succeeded(self, endpoint: str, opens: int) -> Breaker:
        """A call succeeded where calls had failed before; the breaker after it."""
        ...

    async def released(self, endpoint: str, opens: int) -> Breaker:
        """A call that was the probe said nothing of the endpoint; the breaker after it."""
        ...

    async def probed(self, endpoint: str) -> tuple[bool, Breaker]:
        """Whether this process may send the one request that tries a half-open endpoint; the breaker after it."""
        ...

    async def look(self) -> Mapping[str, Breaker]:
        """Every endpoint that has failed lately."""
        ...


class Latencies(Protocol):
    """What all routers know of how quick endpoints are. state/latency.py."""

    async def exchange(self, samples: Mapping[str, Sample]) -> Mapping[str, Latency]:
        """Hand in what this process has measured since it last came; what all together know, on this process's
        monotonic clock. Unavailable: this process goes on alone."""
        ...
