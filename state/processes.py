"""Which processes of the system are there: each says so every few seconds, and is forgotten when it falls silent.

    processes   hash   consumer -> ProcessRecord, signed for its place; a silent one is left out and removed

A process that stops in order takes itself out; one that was killed drops out after SILENT_MS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from base.replies import pairs, time_ms
from schemas.errors import UNREADABLE
from schemas.ports import Redis
from schemas.records import ProcessRecord
from state.proofs import Plain, Proofs

KEY = "processes"
SILENT_MS = 15_000  # three missed words
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ProcessRecord)


class RedisProcesses:
    """Announced processes on a server. Everything raises Unavailable when it is away."""

    def __init__(self, redis: Redis, *, proofs: Proofs | None = None) -> None:
        self._redis, self._proofs = redis, proofs or Plain()

    async def announce(self, record: ProcessRecord) -> None:
        """Be known for SILENT_MS; again before they are over."""
        seen = replace(record, seen_ms=await self._now())
        content = self._proofs.wrap(_place(record.consumer), _encoder.encode(seen))
        await self._redis.execute("HSET", KEY, record.consumer, content)

    async def withdraw(self, consumer: str) -> None:
        """Be forgotten at once. Idempotent."""
        await self._redis.execute("HDEL", KEY, consumer)

    async def list(self) -> Sequence[ProcessRecord]:
        """Those that spoke within SILENT_MS, by name."""
        reply, now = await asyncio.gather(self._redis.execute("HGETALL", KEY), self._now())
        found, gone = [], []
        for name, raw in pairs(reply):
            record = self._open(name.decode("utf8", "replace"), raw)
            if record is not None and record.seen_ms > now - SILENT_MS:
                found.append(record)
            else:
                gone.append(name)
        if gone:
            await self._redis.execute("HDEL", KEY, *gone)
        return sorted(found, key=lambda record: record.consumer)

    def _open(self, name: str, raw: bytes) -> ProcessRecord | None:
        """The record, None for one that was not written there by us or that we cannot read."""
        content = self._proofs.open(_place(name), raw)
        try:
            return _decoder.decode(content) if content is not None else None
        except UNREADABLE:
            return None

    async def _now(self) -> int:
        return time_ms(await self._redis.execute("TIME"))


def _place(consumer: str) -> str:
    return f"{KEY}/{consumer}"
