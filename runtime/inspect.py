"""What an operator sees of the groups: lag, pending, oldest age, consumers, dead letters. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.client import ServerError
from runtime.names import place_of, prefix, waiting_key
from runtime.topology import Topology
from schemas.ports import Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """One group on one stream. lag: entries not yet read. pending: read, not acknowledged. oldest_ms: age of the
    oldest of both, 0 = none. idle consumers count too."""

    stream: str
    group: str
    length: int
    lag: int
    pending: int
    oldest_ms: int
    consumers: int


async def laden_pools(redis: Redis, partitions: int) -> set[str]:
    """Pools in whose lanes a run waits or is served, whether or not the catalog has them still. Unavailable."""
    found: set[str] = set()
    for number in range(partitions):
        p = prefix(number)
        lanes = [lane.decode() for lane in await redis.execute("SMEMBERS", f"{p}:lanes")]
        lengths = await asyncio.gather(*(redis.execute("XLEN", lane) for lane in lanes))
        waiting = await asyncio.gather(*(redis.execute("ZCARD", waiting_key(lane)) for lane in lanes))
        found.update(
            place_of(lane)[0] for lane, here, there in zip(lanes, lengths, waiting, strict=True) if here or there
        )
    return found


class Inspector:
    """Looks at every stream that the topology knows and that exists."""

    def __init__(self, redis: Redis, topology: Topology, partitions: int) -> None:
        self._redis, self._topology, self._partitions = redis, topology, partitions

    async def lags(self) -> Sequence[GroupLag]:
        """Every group of every existing stream."""
        now = int((await self._redis.execute("TIME"))[0]) * 1000
        keys = [key for _, key, groups in self._topology.keys(self._partitions) if groups]
        for number in range(self._partitions):
            lanes = await self._redis.execute("SMEMBERS", f"{prefix(number)}:lanes")
            keys += sorted(lane.decode() for lane in lanes)
        return [lag for key in keys for lag in await self._of(key, now)]

    async def live(self) -> int:
        """Runs that have not ended."""
        return sum([int(await self._redis.execute("ZCARD", f"{prefix(n)}:live")) for n in range(self._partitions)])

    async def dead(self) -> int:
        """Dead letters kept in the partitions."""
        return sum([int(await self._redis.execute("XLEN", f"{prefix(n)}:dlq")) for n in range(self._partitions)])

    async def _of(self, key: str, now: int) -> list[GroupLag]:
        try:
            groups = await self._redis.execute("XINFO", "GROUPS", key)
        except ServerError:
            return []
        length = int(await self._redis.execute("XLEN", key))
        return [await self._group(key, length, group, now) for group in groups]

    async def _group(self, key: str, length: int, group: Mapping[bytes, Any], now: int) -> GroupLag:
        """`lag` is nil after an XDEL in the unread part; then it is what is left of the length."""
        name, pending = group[b"name"].decode(), int(group[b"pending"])
        lag = group.get(b"lag")
        unread = int(lag) if lag is not None else max(0, length - pending)
        oldest = await self._oldest(key, name, group[b"last-delivered-id"].decode(), pending, unread)
        return GroupLag(
            stream=key,
            group=name,
            length=length,
            lag=unread,
            pending=pending,
            oldest_ms=max(0, now - oldest) if oldest else 0,
            consumers=int(group[b"consumers"]),
        )

    async def _oldest(self, key: str, group: str, last: str, pending: int, unread: int) -> int:
        """Birth of the oldest entry that is not done, ms; 0 = none."""
        if pending:
            summary = await self._redis.execute("XPENDING", key, group)
            return int(summary[1].decode().partition("-")[0])
        if unread:
            rows = await self._redis.execute("XRANGE", key, f"({last}", "+", "COUNT", 1)
            return int(rows[0][0].decode().partition("-")[0]) if rows else 0
        return 0
