"""Requests per minute and concurrency of an organization, exact across replicas. Implements ports.Limits.

    {o:<org>}:rpm:<scope>    zset, run -> when it was counted: a sliding window of one minute
    {o:<org>}:held:<scope>   zset, run -> when the hold frees itself: the runs in flight
    {o:<org>}:settled        zset, run -> when the mark goes: runs that ended, for `settled_ms`

There is no counter to drift: every figure is a number of members named by run id that expire by the server's clock. A
run whose process died frees itself when its ttl is over. Runs of one organization travel in one script call; several
organizations in one write.

A mark outlives its run by `settled_ms` only. A reserve delivered later than that (authorization was down for longer)
holds until its ttl, which errs on the safe side and mends itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import resources
from typing import Any

from schemas.ports import Redis, Reservation, Reserved

SETTLED_MS = 600_000
_RESERVE = (resources.files("state") / "reserve.lua").read_text()
_SETTLE = (resources.files("state") / "settle.lua").read_text()


class RedisLimits:
    """Reservations on a server."""

    def __init__(self, redis: Redis, *, settled_ms: int = SETTLED_MS) -> None:
        self._redis, self._settled = redis, settled_ms

    async def reserve(self, wanted: Sequence[Reservation]) -> Sequence[Reserved]:
        """Answers in order; asking again for the same run gives the same answer and no second hold. Unavailable."""
        answers = [Reserved(granted=True)] * len(wanted)
        by_tenant: dict[str, list[int]] = {}
        for place, item in enumerate(wanted):
            if item.scopes:
                by_tenant.setdefault(item.tenant, []).append(place)
        work = [self._reserve([wanted[place] for place in places]) for places in by_tenant.values()]
        replies = [await work[0]] if len(work) == 1 else await asyncio.gather(*work)
        for places, reply in zip(by_tenant.values(), replies, strict=True):
            for place, answer in zip(places, reply, strict=True):
                answers[place] = answer
        return answers

    async def settle(self, tenant: str, run: str, scopes: Sequence[str]) -> None:
        """The run ended: free its concurrency. Once or often, before or after expiry: the same. Unavailable."""
        if not scopes:
            return
        keys = [f"{_tag(tenant)}:settled", *(f"{_tag(tenant)}:held:{name}" for name in scopes)]
        await self._redis.script(_SETTLE, keys, (run, self._settled))

    async def _reserve(self, group: Sequence[Reservation]) -> list[Reserved]:
        """Runs of one organization, in one call."""
        names = list(dict.fromkeys(scope.name for item in group for scope in item.scopes))
        place = {name: i for i, name in enumerate(names, start=1)}
        args: list[str | int] = []
        for item in group:
            args += (item.run, item.ttl_ms, len(item.scopes))
            for scope in item.scopes:
                args += (place[scope.name], scope.requests_per_minute, scope.concurrency)
        reply = await self._redis.script(_RESERVE, _keys(group[0].tenant, names), args)
        return [_answer(row, names) for row in reply]


def _tag(tenant: str) -> str:
    """The organization's hash tag. ValueError for a name that would break it."""
    if not tenant or "{" in tenant or "}" in tenant:
        raise ValueError("a tenant's name must not be empty and must not contain braces")
    return "{o:" + tenant + "}"


def _keys(tenant: str, names: Sequence[str]) -> list[str]:
    tag = _tag(tenant)
    return [f"{tag}:settled"] + [f"{tag}:{kind}:{name}" for name in names for kind in ("rpm", "held")]


def _answer(row: Sequence[Any], names: Sequence[str]) -> Reserved:
    granted, place, limit, figure, remaining, reset, retry = row
    return Reserved(
        granted=bool(granted),
        scope=names[place - 1] if place else "",
        limit=limit.decode(),
        limit_requests=figure,
        remaining_requests=remaining,
        reset_requests_ms=reset,
        retry_after_ms=retry,
    )
