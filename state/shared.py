"""The shared state as one process holds it: built once at start, told what to read again by the control stream."""

from __future__ import annotations

from dataclasses import dataclass

from base.clock import Clock
from base.crypto import KeyRing
from schemas.events import CatalogChanged, KeyChanged
from schemas.ports import Redis
from state.catalog import RedisCatalog
from state.inflight import RedisInflight
from state.keys import Load, RedisKeys
from state.limits import RedisLimits
from state.processes import RedisProcesses
from state.proofs import Signed


@dataclass(frozen=True, slots=True)
class Shared:
    """Keys, catalog, limits, the processes and the use of endpoints, over one server."""

    keys: RedisKeys
    catalog: RedisCatalog
    limits: RedisLimits
    processes: RedisProcesses
    inflight: RedisInflight

    @classmethod
    def over(cls, redis: Redis, load: Load, clock: Clock, ring: KeyRing) -> Shared:
        """load: a key's record from PostgreSQL (see state.keys). ring: proves what lies in Redis. Connects to
        nothing."""
        proofs = Signed(ring)
        keys = RedisKeys(redis, load, clock, proofs=proofs)
        catalog = RedisCatalog(redis, clock, proofs=proofs)
        processes = RedisProcesses(redis, proofs=proofs)
        return cls(keys, catalog, RedisLimits(redis), processes, RedisInflight(redis))

    def hear(self, event: object) -> None:
        """An entry of the control stream. What is none of ours is left alone."""
        match event:
            case KeyChanged(key_id=key_id):
                self.keys.forget(key_id)
            case CatalogChanged():
                self.catalog.forget()

    def forget(self) -> None:
        """Entries may have been missed: read everything again before using it."""
        self.keys.forget_all()
        self.catalog.forget()
