"""Which endpoints are left alone, as all routers see it. Implements ports.Breakers; the rules are policy.breaker's.

    breakers    hash, endpoint -> "failures opens until probe changed", ms of the server's clock; see breaker.lua

Nothing is written while all goes well: only failures, a success after failures, and probes. What is returned has its
times on this process's monotonic clock, so clocks of machines need not agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from base.clock import Clock
from policy.breaker import Breaker, Limits, forgiven_ms
from schemas.ports import Redis

KEY = "breakers"
_SCRIPT = (resources.files("state") / "breaker.lua").read_text()


class RedisBreakers:
    """The breakers on a server."""

    def __init__(self, redis: Redis, clock: Clock, limits: Limits) -> None:
        self._redis, self._clock = redis, clock
        past = forgiven_ms(limits)
        self._limits = (limits.failures, limits.open_ms, limits.open_most_ms, limits.probe_ms, past, 2 * past)

    async def failed(self, endpoint: str, opens: int) -> Breaker:
        """See schemas.ports.Breakers."""
        return (await self._step("failed", endpoint, opens))[1]

    async def succeeded(self, endpoint: str, opens: int) -> Breaker:
        """See schemas.ports.Breakers."""
        return (await self._step("succeeded", endpoint, opens))[1]

    async def released(self, endpoint: str, opens: int) -> Breaker:
        """See schemas.ports.Breakers."""
        return (await self._step("released", endpoint, opens))[1]

    async def probed(self, endpoint: str) -> tuple[bool, Breaker]:
        """See schemas.ports.Breakers."""
        return await self._step("probed", endpoint, 0)

    async def look(self) -> Mapping[str, Breaker]:
        """See schemas.ports.Breakers."""
        reply = await self._call("look", "", 0)
        ahead = self._ahead(reply)
        return {
            name.decode("utf8", "replace"): _decode(raw, ahead)
            for name, raw in zip(reply[2::2], reply[3::2], strict=True)
        }

    async def _step(self, step: str, endpoint: str, opens: int) -> tuple[bool, Breaker]:
        reply = await self._call(step, endpoint, opens)
        return bool(reply[1]), _decode(reply[3], self._ahead(reply))

    async def _call(self, step: str, endpoint: str, opens: int) -> Sequence[Any]:
        reply: Sequence[Any] = await self._redis.script(_SCRIPT, (KEY,), (step, endpoint, opens, *self._limits))
        return reply

    def _ahead(self, reply: Sequence[Any]) -> int:
        """Milliseconds by which the server's clock is ahead of ours."""
        return int(reply[0]) - int(self._clock.monotonic() * 1000)


def _decode(raw: bytes, ahead: int) -> Breaker:
    """A value with its times on our clock; what stands for "never" stays 0, what is long past becomes 1 at least."""
    found = Breaker(*(int(part) for part in raw.split()))
    return replace(
        found,
        until_ms=found.until_ms and max(found.until_ms - ahead, 1),
        probe_ms=found.probe_ms and max(found.probe_ms - ahead, 1),
        changed_ms=found.changed_ms - ahead,
    )
