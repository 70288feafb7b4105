"""Putting events and commands on streams outside the runs: commands, control. Refuses what streams.yaml forbids."""

from __future__ import annotations

from base.clock import Clock
from base.ids import Random, short_id
from runtime.seals import Seals
from runtime.topology import Topology
from schemas import envelope as wire
from schemas.errors import SignatureError
from schemas.ports import Redis


class StreamPublisher:
    """Implements schemas.ports.Publisher for one publisher kind."""

    def __init__(self, redis: Redis, topology: Topology, seals: Seals, clock: Clock, chance: Random) -> None:
        self._redis, self._topology, self._seals = redis, topology, seals
        self._clock, self._chance = clock, chance

    async def publish(self, stream: str, event: wire.Event, *, id: str = "", run: str = "") -> str:
        """See schemas.ports.Publisher. SignatureError when this publisher may not say it there."""
        kind, by = type(event).__name__, self._seals.publisher
        if not self._topology.may(stream, by, kind):
            raise SignatureError(f"streams.yaml does not let {by!r} publish {kind} on {stream!r}")
        e = wire.encode(event, id=id or short_id(self._chance), by=by, run=run, at_ms=self._clock.now_ms())
        signed = wire.sign(self._seals.signer, stream, e)
        declared = self._topology.streams[stream]
        limit: tuple[str | int, ...] = ()
        if declared.age is not None:
            limit = ("MINID", "~", max(0, self._clock.now_ms() - declared.age))
        entry = await self._redis.execute("XADD", declared.key, *limit, "*", "e", signed.e, "s", signed.s)
        return str(entry.decode())
