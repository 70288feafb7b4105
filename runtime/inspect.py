"""What an operator sees of the groups: lag, pending, oldest age, consumers, dead letters. Reads only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from base.replies import pairs, time_ms
from runtime.client import ServerError
from runtime.names import place_of, prefix, stream_prefix, waiting_key
from runtime.topology import Topology
from schemas.ports import Redis

MOST_LETTERS = 1000  # of one dlq that are told apart by their group


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """One group on one stream. lag: entries not yet read. pending: read, not acknowledged. oldest_ms: age of the
    oldest of all, 0 = none. idle consumers count too. waiting: before a lane's gate, for a free slot."""

    stream: str
    group: str
    length: int
    lag: int
    pending: int
    oldest_ms: int
    consumers: int
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerView:
    """One consumer of one group on one stream, as the server knows it; one that was killed stays known. pending: read
    and not acknowledged. idle_ms: since it last asked for work or was given some."""

    stream: str
    group: str
    consumer: str
    pending: int
    idle_ms: int


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
        now = time_ms(await self._redis.execute("TIME"))
        return [lag for key in await self._keys() for lag in await self._of(key, now)]

    async def consumers(self) -> Sequence[ConsumerView]:
        """Every consumer of every group of every existing stream."""
        found: list[ConsumerView] = []
        for key in await self._keys():
            for group in await self._groups(key):
                name = group[b"name"].decode()
                rows = await self._redis.execute("XINFO", "CONSUMERS", key, name)
                found += [_consumer(key, name, row) for row in rows]
        return found

    async def dead_by_group(self) -> Mapping[tuple[str, str], int]:
        """(stream, group) -> dead letters, of the newest MOST_LETTERS of each partition."""
        found: Counter[tuple[str, str]] = Counter()
        for key in self._letters():
            for _, flat in await self._redis.execute("XREVRANGE", key, "+", "-", "COUNT", MOST_LETTERS):
                fields = dict(pairs(flat))
                found[fields[b"stream"].decode(), fields[b"group"].decode()] += 1
        return found

    async def live(self) -> int:
        """Runs that have not ended."""
        return sum([int(await self._redis.execute("ZCARD", f"{prefix(n)}:live")) for n in range(self._partitions)])

    async def dead(self) -> int:
        """Dead letters that are kept."""
        return sum([int(await self._redis.execute("XLEN", key)) for key in self._letters()])

    def _letters(self) -> list[str]:
        """Where dead letters lie: in the partitions, and beside each stream outside them."""
        beside = [key for _, key, groups in self._topology.keys(1) if groups and not key.startswith("{")]
        return [f"{prefix(n)}:dlq" for n in range(self._partitions)] + [f"{stream_prefix(key)}dlq" for key in beside]

    async def _keys(self) -> list[str]:
        """Every stream that has groups."""
        keys = [key for _, key, groups in self._topology.keys(self._partitions) if groups]
        for number in range(self._partitions):
            lanes = await self._redis.execute("SMEMBERS", f"{prefix(number)}:lanes")
            keys += sorted(lane.decode() for lane in lanes)
        return keys

    async def _groups(self, key: str) -> Sequence[Mapping[bytes, Any]]:
        """XINFO GROUPS; none for a stream that does not exist."""
        try:
            found: Sequence[Mapping[bytes, Any]] = await self._redis.execute("XINFO", "GROUPS", key)
        except ServerError:
            return []
        return found

    async def _of(self, key: str, now: int) -> list[GroupLag]:
        groups = await self._groups(key)
        length = int(await self._redis.execute("XLEN", key)) if groups else 0
        return [await self._group(key, length, group, now) for group in groups]

    async def _group(self, key: str, length: int, group: Mapping[bytes, Any], now: int) -> GroupLag:
        """`lag` is nil after an XDEL in the unread part; then it is what is left of the length."""
        name, pending = group[b"name"].decode(), int(group[b"pending"])
        lag = group.get(b"lag")
        unread = int(lag) if lag is not None else max(0, length - pending)
        oldest = await self._oldest(key, name, group[b"last-delivered-id"].decode(), pending, unread)
        waiting, since = await self._waiting(key)
        oldest = min(filter(None, (oldest, since)), default=0)
        return GroupLag(
            stream=key,
            group=name,
            length=length,
            lag=unread,
            pending=pending,
            oldest_ms=max(0, now - oldest) if oldest else 0,
            consumers=int(group[b"consumers"]),
            waiting=waiting,
        )

    async def _waiting(self, key: str) -> tuple[int, int]:
        """How many runs wait before a lane's gate, and since when the first does, ms; (0, 0) for other streams."""
        if not place_of(key)[0]:
            return 0, 0
        count = int(await self._redis.execute("ZCARD", waiting_key(key)))
        first = await self._redis.execute("ZRANGE", waiting_key(key), 0, 0, "WITHSCORES") if count else []
        return count, int(first[0][1]) if first else 0

    async def _oldest(self, key: str, group: str, last: str, pending: int, unread: int) -> int:
        """Birth of the oldest entry that is not done, ms; 0 = none."""
        if pending:
            summary = await self._redis.execute("XPENDING", key, group)
            return int(summary[1].decode().partition("-")[0])
        if unread:
            rows = await self._redis.execute("XRANGE", key, f"({last}", "+", "COUNT", 1)
            return int(rows[0][0].decode().partition("-")[0]) if rows else 0
        return 0


def _consumer(key: str, group: str, row: Mapping[bytes, Any]) -> ConsumerView:
    return ConsumerView(
        stream=key,
        group=group,
        consumer=row[b"name"].decode("utf8", "replace"),
        pending=int(row[b"pending"]),
        idle_ms=int(row[b"idle"]),
    )
