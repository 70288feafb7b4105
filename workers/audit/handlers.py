"""One class per group. Both may get any fact any number of times, in any order.

A store that is away is raised as Unavailable: the engine keeps the facts, waits and comes again, and counts nothing
against them; no request waits for either group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from base import logs, metrics
from base.clock import Clock
from policy.prices import Price
from schemas.envelope import VerifierPort
from schemas.errors import DecodeError, HeadraceError, SignatureError, Unavailable, UnknownVersion
from schemas.outcomes import Again, Dead, Delivery, Done, Outcome
from schemas.ports import Keys, Limits
from schemas.records import FactRecord, KeyRecord, RequestRecord
from workers.audit import rules
from workers.audit.measures import measure
from workers.audit.opening import Holder, Opened, open_fact, open_holder
from workers.audit.ports import Record

log = logs.room("audit")
T = TypeVar("T")

_NEWER_S = 5.0  # before a fact with a part newer than this process is looked at again


def opened_or_outcome(read: Callable[[Delivery], T], delivery: Delivery) -> T | Outcome:
    """What can be read of a delivery, or the outcome of one that can't be."""
    try:
        return read(delivery)
    except (SignatureError, DecodeError) as error:
        return Dead(f"{type(error).__name__}: {error}")
    except UnknownVersion as error:
        return Again(_NEWER_S, str(error))


class Audit:
    """Group `audit`: one transaction per batch; acknowledged after its commit."""

    def __init__(
        self,
        verifier: VerifierPort,
        publishers: Mapping[str, list[str]],
        record: Record,
        prices: Sequence[Price],
        clock: Clock,
    ) -> None:
        self._read = lambda delivery: open_fact(delivery, verifier, publishers)
        self._record, self._prices, self._clock = record, tuple(prices), clock

    async def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Done for what is in the record, Dead for what is not to be believed. Unavailable while PostgreSQL is away."""
        opened = [opened_or_outcome(self._read, item) for item in deliveries]
        pairs = [rules.rows(item, self._prices) for item in opened if isinstance(item, Opened)]
        for _, request in pairs:
            if request.unverified:
                log.warning("parts of a fact are not proven", run=request.run, parts=list(request.unverified))
        if pairs:
            await self._write(pairs)
        return [Done() if isinstance(item, Opened) else item for item in opened]

    async def _write(self, pairs: Sequence[tuple[FactRecord, RequestRecord]]) -> None:
        oldest = min(request.ended_ms for _, request in pairs)
        try:
            new = await self._record.write([fact for fact, _ in pairs], [request for _, request in pairs])
        except Unavailable:
            metrics.gauge("headrace_audit_lag_seconds", max(self._clock.now_ms() - oldest, 0) / 1000)
            raise
        metrics.gauge("headrace_audit_lag_seconds", 0)
        metrics.inc("headrace_audit_written_total", len(pairs), table="facts")
        metrics.inc("headrace_audit_written_total", len(new), table="requests")
        measure({request.run: request for _, request in pairs if request.run in new}.values())


class Ledger:
    """Group `ledger`: frees what ended runs held. Unproven holds are left to expire."""

    def __init__(self, verifier: VerifierPort, publishers: Mapping[str, list[str]], keys: Keys, limits: Limits) -> None:
        self._read = lambda delivery: open_holder(delivery, verifier, publishers)
        self._keys, self._limits = keys, limits

    async def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Done for what was settled or held nothing. Unavailable while Redis is away."""
        opened = [opened_or_outcome(self._read, item) for item in deliveries]
        holders = [item for item in opened if isinstance(item, Holder) and rules.may_hold(item)]
        if holders:  # most runs hold nothing
            await asyncio.gather(*(self._settle(item) for item in holders))
        return [Done() if isinstance(item, Holder) else item for item in opened]

    async def _settle(self, holder: Holder) -> None:
        held = rules.settlement(holder, await self._key(holder.key_id) if holder.key_id else None)
        if held is not None:
            await self._limits.settle(held.tenant, held.run, held.scopes)

    async def _key(self, key_id: str) -> KeyRecord | None:
        """None also when no store tells it: then authorization can hardly have reserved, and others must not wait."""
        try:
            return await self._keys.find(key_id)
        except HeadraceError:
            return None
