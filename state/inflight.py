"""Which routers have requests at an endpoint, so that whoever ends an engine knows when nobody needs it any more.

    {endpoints}:inflight   hash, router process -> JSON of its last report; counts for `lost_ms` after it was made

A report names the endpoints that its process has requests at, and those that it could still choose: it read them in
the catalog a moment ago. An endpoint is idle once every live process has reported since the endpoint was withdrawn
and none of them named it. Nothing is guessed from the passing of time, except that a process which has been silent
for `lost_ms` is dead: by then its runs are another router's. Times are the server's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from base.replies import pairs, time_ms
from schemas.errors import UNREADABLE
from schemas.ports import Redis

KEY = "{endpoints}:inflight"
LOST_MS = 15_000  # the idle limit of the group router


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one router process said. at_ms: when it began to look. known: endpoints it may choose. used: endpoint ->
    requests there."""

    at_ms: int
    known: tuple[str, ...] = ()
    used: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """An endpoint as the routers use it. requests: running there. unsure: processes that might still send some."""

    requests: int = 0
    unsure: int = 0

    @property
    def idle(self) -> bool:
        return not self.requests and not self.unsure


class RedisInflight:
    """The reports on a server. Every method may raise Unavailable."""

    def __init__(self, redis: Redis, *, lost_ms: int = LOST_MS) -> None:
        self._redis, self._lost_ms = redis, lost_ms
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Report)

    async def now_ms(self) -> int:
        """The server's time."""
        return time_ms(await self._redis.execute("TIME"))

    async def report(self, process: str, report: Report) -> None:
        """Replace what the process said before."""
        await self._redis.execute("HSET", KEY, process, self._encoder.encode(report))

    async def leave(self, process: str) -> None:
        """The process sends nothing any more."""
        await self._redis.execute("HDEL", KEY, process)

    async def use(self, endpoint: str, since_ms: int) -> Use:
        """How an endpoint that was withdrawn at since_ms is used now. Reports of the dead are removed."""
        reports = {name: self._read(raw) for name, raw in pairs(await self._redis.execute("HGETALL", KEY))}
        dead = lost(reports, await self.now_ms() - self._lost_ms)
        if dead:
            await self._redis.execute("HDEL", KEY, *dead)
        return judge([report for name, report in reports.items() if name not in dead], endpoint, since_ms)

    def _read(self, raw: bytes) -> Report:
        """One that does not decode (of a newer router) is taken for a process that has not reported yet."""
        try:
            return self._decoder.decode(raw)
        except UNREADABLE:
            return Report(at_ms=0)


def lost(reports: Mapping[Any, Report], before_ms: int) -> Collection[Any]:
    """The processes that were last heard of before then. Pure."""
    return [name for name, report in reports.items() if report.at_ms < before_ms]


def judge(reports: Iterable[Report], endpoint: str, since_ms: int) -> Use:
    """What the live reports say of an endpoint that was withdrawn at since_ms. Pure."""
    requests = unsure = 0
    for report in reports:
        requests += report.used.get(endpoint, 0)
        unsure += report.at_ms < since_ms or endpoint in report.known
    return Use(requests=requests, unsure=unsure)
