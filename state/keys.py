"""Key records by id: a cache in the process, over a projection in Redis, over PostgreSQL. Implements ports.Keys.

    cache        `fresh_s` old at most; dropped at once by forget(), which every process calls on KeyChanged
    projection   key:<id>, a string of JSON that lives a day; older than `recheck_s` (by the server's own clock) it is
                 read from PostgreSQL again, so a revocation lost in a failover holds at most fresh_s + recheck_s = 60 s
    PostgreSQL   the record; reached through `load`

When stores are away: without PostgreSQL the projection serves whatever its age (nothing can be revoked meanwhile,
revoking needs PostgreSQL). Without Redis too, what the process has seen serves `stale_s` from its last confirmation.
The cache is keyed by the key's id alone and holds no secret and no decision: every request's MAC is compared afresh.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources

import msgspec

from base.clock import Clock
from schemas.errors import UNREADABLE, Unavailable
from schemas.ports import Redis
from schemas.records import KeyRecord
from state.proofs import Plain, Proofs

Load = Callable[[str], Awaitable[KeyRecord | None]]

LIFE_MS = 86_400_000  # of a projection
_RETRY_S = 1.0  # between attempts to refresh while the stores are away
_PROJECT = (resources.files("state") / "project.lua").read_text()
_decoder = msgspec.json.Decoder(KeyRecord)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How old an answer may be, in seconds. absent: how long "no such key" is remembered."""

    fresh: float = 30.0
    recheck: float = 30.0
    stale: float = 600.0
    absent: float = 1.0


@dataclass(slots=True)
class _Seen:
    """One cached answer: when it was confirmed and until when nobody need ask again (monotonic seconds)."""

    record: KeyRecord | None
    confirmed: float
    until: float


class RedisKeys:
    """The keys of the house, as one process sees them. load: the record from PostgreSQL, None when there is none,
    Unavailable when it does not answer."""

    def __init__(
        self,
        redis: Redis,
        load: Load,
        clock: Clock,
        *,
        ages: Ages | None = None,
        capacity: int = 10_000,
        proofs: Proofs | None = None,
    ) -> None:
        self._proofs = proofs or Plain()
        self._redis, self._load, self._clock = redis, load, clock
        self._ages, self._capacity = ages or Ages(), capacity
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._forgotten = 0
        self._reading: dict[tuple[str, int], asyncio.Task[KeyRecord | None]] = {}

    async def find(self, key_id: str) -> KeyRecord | None:
        """The record, revoked ones included; None when no such key. Unavailable when no store answers and this process
        has not seen the key within `stale` seconds."""
        seen = self._seen.get(key_id)
        if seen is not None and self._clock.monotonic() < seen.until:
            self._seen.move_to_end(key_id)
            return seen.record
        place = (key_id, self._forgotten)
        reading = self._reading.get(place)
        if reading is None:  # everybody who asks now waits for one answer; whoever asks after a change reads anew
            reading = self._reading[place] = asyncio.create_task(self._fetch(key_id))
            reading.add_done_callback(lambda _: self._reading.pop(place, None))
        return await asyncio.shield(reading)

    async def _fetch(self, key_id: str) -> KeyRecord | None:
        before = self._forgotten
        try:
            record = await self._read(key_id)
        except Unavailable:
            return self._stale(key_id)
        if before == self._forgotten:  # else it may have changed while we read
            self._remember(key_id, record)
        return record

    def forget(self, key_id: str) -> None:
        """KeyChanged: read this key again before using it."""
        self._forgotten += 1
        self._seen.pop(key_id, None)

    def forget_all(self) -> None:
        """Events may have been missed (the control stream was lost or trimmed): trust nothing that was cached."""
        self._forgotten += 1
        for seen in self._seen.values():
            seen.until = 0.0  # still there if the stores are away

    async def project(self, record: KeyRecord) -> None:
        """Publish what PostgreSQL now says; for the console, after its commit and before KeyChanged. Unavailable."""
        await self._redis.execute("SET", _key(record.key_id), self._wrapped(record), "PX", LIFE_MS)
        self.forget(record.key_id)

    async def _read(self, key_id: str) -> KeyRecord | None:
        """From the projection while it is young, else from PostgreSQL, else from the projection whatever its age."""
        try:
            raw, age_ms = await self._projection(key_id)
        except Unavailable:
            return await self._load(key_id)
        projected = self._proven(key_id, raw)
        if projected is not None and age_ms < self._ages.recheck * 1000:
            return projected
        try:
            record = await self._load(key_id)
        except Unavailable:
            if projected is None:
                raise
            return projected
        return await self._reproject(key_id, raw, record)

    async def _projection(self, key_id: str) -> tuple[bytes, float]:
        """What lies in Redis (b"" = nothing) and its age in milliseconds. Both questions leave in one write."""
        raw, left = await asyncio.gather(
            self._redis.execute("GET", _key(key_id)), self._redis.execute("PTTL", _key(key_id))
        )
        return raw or b"", LIFE_MS - int(left)

    async def _reproject(self, key_id: str, raw: bytes, record: KeyRecord | None) -> KeyRecord | None:
        """Write what was loaded over what was seen. Somebody faster has newer news: theirs counts."""
        if record is None:
            return None
        try:
            args = (raw, self._wrapped(record), LIFE_MS)
            if not await self._redis.script(_PROJECT, (_key(key_id),), args):
                raw, _ = await self._projection(key_id)
                return self._proven(key_id, raw) or record
        except Unavailable:
            pass  # the record is right all the same
        return record

    def _wrapped(self, record: KeyRecord) -> bytes:
        return self._proofs.wrap(_key(record.key_id), _encoder.encode(record))

    def _proven(self, key_id: str, raw: bytes) -> KeyRecord | None:
        return _decode(self._proofs.open(_key(key_id), raw) or b"")

    def _remember(self, key_id: str, record: KeyRecord | None) -> None:
        now = self._clock.monotonic()
        age = self._ages.absent if record is None else self._ages.fresh
        self._seen[key_id] = _Seen(record, now, now + age)
        self._seen.move_to_end(key_id)
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def _stale(self, key_id: str) -> KeyRecord | None:
        """What was seen before and not forgotten since, while no store answers."""
        now, seen = self._clock.monotonic(), self._seen.get(key_id)
        if seen is None or seen.record is None or now >= seen.confirmed + self._ages.stale:
            raise Unavailable("no store answers and this key was not seen lately; check Redis and PostgreSQL")
        seen.until = now + _RETRY_S
        return seen.record


def _key(key_id: str) -> str:
    return f"key:{key_id}"


def _decode(raw: bytes) -> KeyRecord | None:
    """A projection, None when there is none or another version wrote it in a form unknown here."""
    try:
        return _decoder.decode(raw) if raw else None
    except UNREADABLE:
        return None
