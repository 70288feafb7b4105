"""How quick endpoints are, shared by all routers about once a second. Implements workers.router.ports.Latencies.

    latencies   hash, endpoint -> "ttft peak at", seconds and ms of the server's clock; see latency.lua

Every process measures by itself and hands in what it measured since it last came; the server folds it into the one
average, which the process then goes on with. Nothing of it is on a request's path. It is a hint: losing it costs a few
unlucky choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from base.clock import Clock
from base.ewma import DECAY_S, Latency, Sample
from schemas.ports import Redis

KEY = "latencies"
#: Milliseconds after which what nobody measured is forgotten: it has faded to a 400th by then.
LIFE_MS = int(6 * DECAY_S * 1000)
_SCRIPT = (resources.files("state") / "latency.lua").read_text()


class RedisLatencies:
    """The averages on a server."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock

    async def exchange(self, samples: Mapping[str, Sample]) -> Mapping[str, Latency]:
        """See workers.router.ports.Latencies."""
        args: list[str | bytes | int] = [int(DECAY_S * 1000), LIFE_MS]
        for name, sample in samples.items():
            args += (name, f"{sample.mean_s:.6f}", f"{sample.most_s:.6f}")
        seen = await self._redis.script(_SCRIPT, (KEY,), args)
        now = self._clock.monotonic()
        return {
            name.decode("utf8", "replace"): Latency(float(ttft), float(peak), now - int(age) / 1000)
            for name, ttft, peak, age in zip(seen[::4], seen[1::4], seen[2::4], seen[3::4], strict=True)
        }
