"""Models and endpoints: published by the provisioner, read by everybody from a snapshot in the process.

    catalog:models      hash, model name -> JSON of ModelRecord; lives until withdrawn
    catalog:endpoints   hash, endpoint id -> JSON of EndpointRecord; lives until withdrawn

Implements ports.Catalog. The snapshot is read again after `fresh_s` or on forget() (CatalogChanged), and served as it
is while Redis is away. Endpoints appear before their model and go after it, so a name never leads nowhere on purpose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from base.clock import Clock
from base.replies import pairs
from schemas.errors import UNREADABLE, Unavailable
from schemas.ports import Redis
from schemas.records import EndpointRecord, ModelRecord
from state.proofs import Plain, Proofs

MODELS, ENDPOINTS = "catalog:models", "catalog:endpoints"
_RETRY_S = 1.0  # between attempts to refresh while Redis is away
_models = msgspec.json.Decoder(ModelRecord)
_endpoints = msgspec.json.Decoder(EndpointRecord)
_encoder = msgspec.json.Encoder()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalog at one moment. pools: pool -> its endpoints, by id."""

    models: Mapping[str, ModelRecord] = field(default_factory=dict)
    pools: Mapping[str, tuple[EndpointRecord, ...]] = field(default_factory=dict)


class RedisCatalog:
    """The catalog as one process sees it, and the provisioner's way to change it."""

    def __init__(self, redis: Redis, clock: Clock, *, fresh_s: float = 5.0, proofs: Proofs | None = None) -> None:
        self._proofs = proofs or Plain()
        self._redis, self._clock, self._fresh = redis, clock, fresh_s
        self._snapshot: Snapshot | None = None
        self._until = 0.0
        self._forgotten = 0
        self._reading = asyncio.Lock()

    async def model(self, name: str) -> ModelRecord | None:
        """The record of a public name, or None. Unavailable when Redis is away and nothing was ever read."""
        return (await self._current()).models.get(name)

    async def models(self) -> Sequence[ModelRecord]:
        """All models, by name. Unavailable as above."""
        return tuple((await self._current()).models.values())

    async def endpoints(self, pool: str) -> Sequence[EndpointRecord]:
        """The endpoints of a pool, by id; () for an unknown pool. Unavailable as above."""
        return (await self._current()).pools.get(pool, ())

    async def known(self) -> Sequence[EndpointRecord]:
        """Every endpoint, by id, whether or not a model leads to it. Unavailable as above."""
        pools = (await self._current()).pools.values()
        return sorted((item for pool in pools for item in pool), key=lambda item: item.endpoint)

    def forget(self) -> None:
        """CatalogChanged: read again before the next answer."""
        self._forgotten += 1
        self._until = 0.0

    async def publish(self, models: Iterable[ModelRecord] = (), endpoints: Iterable[EndpointRecord] = ()) -> None:
        """Add or replace; may be repeated. Unavailable: repeat it."""
        await self._put(ENDPOINTS, {item.endpoint: item for item in endpoints})
        await self._put(MODELS, {item.name: item for item in models})
        self.forget()

    async def withdraw(self, models: Sequence[str] = (), endpoints: Sequence[str] = ()) -> None:
        """Remove by name and id; may be repeated. Unavailable: repeat it."""
        for key, names in ((MODELS, models), (ENDPOINTS, endpoints)):
            if names:
                await self._redis.execute("HDEL", key, *names)
        self.forget()

    async def _put(self, key: str, items: Mapping[str, object]) -> None:
        parts = [part for name, item in items.items() for part in (name, self._wrapped(key, name, item))]
        if parts:
            await self._redis.execute("HSET", key, *parts)

    def _wrapped(self, key: str, name: str, item: object) -> bytes:
        return self._proofs.wrap(f"{key}/{name}", _encoder.encode(item))

    def _proven(self, key: str, reply: Any) -> list[bytes]:
        """The values of a hash that were written in their place by us."""
        opened = [self._proofs.open(f"{key}/{name.decode('utf8', 'replace')}", raw) for name, raw in pairs(reply)]
        return [content for content in opened if content is not None]

    async def _current(self) -> Snapshot:
        if self._snapshot is not None and self._clock.monotonic() < self._until:
            return self._snapshot
        async with self._reading:
            if self._snapshot is not None and self._clock.monotonic() < self._until:
                return self._snapshot  # somebody read it while we waited
            return await self._refresh()

    async def _refresh(self) -> Snapshot:
        before = self._forgotten
        try:
            raw = await asyncio.gather(
                self._redis.execute("HGETALL", MODELS), self._redis.execute("HGETALL", ENDPOINTS)
            )
        except Unavailable:
            if self._snapshot is None:
                raise
            self._until = self._clock.monotonic() + _RETRY_S
            return self._snapshot
        models = _decode_all(_models, self._proven(MODELS, raw[0]))
        self._snapshot = snapshot(models, _decode_all(_endpoints, self._proven(ENDPOINTS, raw[1])))
        if before == self._forgotten:  # else it changed while we read: the next one reads again
            self._until = self._clock.monotonic() + self._fresh
        return self._snapshot


def snapshot(models: Iterable[ModelRecord], endpoints: Iterable[EndpointRecord]) -> Snapshot:
    """A catalog in its orders: models by name, endpoints by id within their pool."""
    pools: dict[str, tuple[EndpointRecord, ...]] = {}
    for item in sorted(endpoints, key=lambda item: item.endpoint):
        pools[item.pool] = (*pools.get(item.pool, ()), item)
    return Snapshot({item.name: item for item in sorted(models, key=lambda item: item.name)}, pools)


def _decode_all(decoder: msgspec.json.Decoder[T], values: Iterable[bytes]) -> list[T]:
    """The values of a hash. One that does not decode (written by a newer provisioner) is left out, not fatal."""
    found: list[T] = []
    for raw in values:
        try:
            found.append(decoder.decode(raw))
        except UNREADABLE:
            continue
    return found
