"""How quick endpoints are and what each router has there, shared about once a second. Implements ports.Latencies.

    latencies   hash, endpoint -> "ttft peak at"; inflight: hash, process -> what it has at the endpoints; latency.lua

Every process measures by itself and hands in what it measured since it last came; the server folds it into the one
average, which the process then goes on with. Nothing of it is on a request's path. Both hashes are hints: losing them
costs a few unlucky choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import msgspec

from base.clock import Clock
from base.ewma import DECAY_S, Latency, Sample
from schemas.ports import Redis

LATENCIES, INFLIGHT = "{routing}:latencies", "{routing}:inflight"
#: Milliseconds after which what nobody measured is forgotten: it has faded to a 400th by then.
LIFE_MS = int(6 * DECAY_S * 1000)
_SCRIPT = (resources.files("state") / "latency.lua").read_text()
_counts = msgspec.json.Decoder(dict[str, int])
_encoder = msgspec.json.Encoder()


class RedisLatencies:
    """The averages on a server."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock

    async def exchange(
        self, process: str, inflight: Mapping[str, int], samples: Mapping[str, Sample]
    ) -> tuple[Mapping[str, Latency], Mapping[str, Mapping[str, int]]]:
        """See workers.router.ports.Latencies."""
        args: list[str | bytes | int] = [int(DECAY_S * 1000), LIFE_MS, process, _encoder.encode(inflight)]
        for name, sample in samples.items():
            args += (name, f"{sample.mean_s:.6f}", f"{sample.most_s:.6f}")
        seen, said = await self._redis.script(_SCRIPT, (LATENCIES, INFLIGHT), args)
        now = self._clock.monotonic()
        found = {
            name.decode("utf8", "replace"): Latency(float(ttft), float(peak), now - int(age) / 1000)
            for name, ttft, peak, age in zip(seen[::4], seen[1::4], seen[2::4], seen[3::4], strict=True)
        }
        counts = {name.decode("utf8", "replace"): _decode(raw) for name, raw in zip(said[::2], said[1::2], strict=True)}
        return found, counts


def _decode(raw: bytes) -> Mapping[str, int]:
    """What a process said; nothing when another version said it in a form unknown here."""
    try:
        return _counts.decode(raw)
    except msgspec.MsgspecError:
        return {}
