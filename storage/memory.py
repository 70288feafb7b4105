"""The record without a database: the twins of keys, deployments, catalog, requests and archive, for tests and examples.

They pass the same contract suite. What they keep is gone with the process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from schemas.records import (
    ArchiveRecord,
    DeploymentRecord,
    EndpointRecord,
    FactRecord,
    KeyRecord,
    ModelRecord,
    ReplicaRecord,
    RequestRecord,
)
from storage.access import OPERATOR, Access
from storage.errors import StoreRefused
from storage.ports import Page, Place, RequestFilter, Store, UsageSum
from storage.requests import cut


def memory_store() -> Store:
    """A fresh, empty store."""
    requests = MemoryRequests()
    return Store(
        keys=MemoryKeys(),
        deployments=MemoryDeployments(),
        catalog=MemoryCatalog(),
        requests=requests,
        archive=MemoryArchive(requests),
    )


class MemoryKeys:
    """Twin of PostgresKeys."""

    def __init__(self) -> None:
        self._keys: dict[str, KeyRecord] = {}

    async def create(self, access: Access, record: KeyRecord) -> bool:
        if not record.tenant or not access.may_see(record.tenant):
            raise StoreRefused("a key belongs to a tenant, and only that tenant or the operator creates it")
        return self._keys.setdefault(record.key_id, record) is record

    async def find(self, key_id: str) -> KeyRecord | None:
        return self._keys.get(key_id)

    async def list(self, access: Access) -> Sequence[KeyRecord]:
        seen = [key for key in self._keys.values() if access.may_see(key.tenant)]
        return sorted(seen, key=lambda key: (key.tenant, key.created_ms, key.key_id))

    async def rotate(
        self, access: Access, key_id: str, secret_mac: str, mac_kid: str, overlap_until_ms: int
    ) -> KeyRecord | None:
        old = self._seen(access, key_id)
        if old is None or old.revoked_ms:
            return None
        previous = replace(old, previous_mac=old.secret_mac, previous_mac_kid=old.mac_kid)
        new = replace(previous, secret_mac=secret_mac, mac_kid=mac_kid, previous_until_ms=overlap_until_ms)
        self._keys[key_id] = new
        return new

    async def revoke(self, access: Access, key_id: str, at_ms: int) -> KeyRecord | None:
        old = self._seen(access, key_id)
        if old is not None:
            self._keys[key_id] = replace(old, revoked_ms=old.revoked_ms or at_ms)
        return self._seen(access, key_id)

    def _seen(self, access: Access, key_id: str) -> KeyRecord | None:
        key = self._keys.get(key_id)
        return key if key is not None and access.may_see(key.tenant) else None


class MemoryDeployments:
    """Twin of PostgresDeployments."""

    def __init__(self) -> None:
        self._deployments: dict[str, DeploymentRecord] = {}
        self._replicas: dict[tuple[str, int], ReplicaRecord] = {}
        self._done: dict[str, int] = {}  # command id -> when it was finished, 0 = begun

    async def put(self, record: DeploymentRecord) -> None:
        old = self._deployments.get(record.deployment)
        self._deployments[record.deployment] = replace(record, created_ms=old.created_ms) if old else record

    async def find(self, deployment: str) -> DeploymentRecord | None:
        return self._deployments.get(deployment)

    async def list(self) -> Sequence[DeploymentRecord]:
        return sorted(self._deployments.values(), key=lambda item: (item.created_ms, item.deployment))

    async def set_state(
        self, deployment: str, state: str, reason: str, at_ms: int, pid: int = 0, command_id: str | None = None
    ) -> DeploymentRecord | None:
        old = self._deployments.get(deployment)
        if old is None or command_id not in (None, old.command_id):
            return None
        moved = self._deployments[deployment] = replace(old, state=state, reason=reason, pid=pid, updated_ms=at_ms)
        return moved

    async def remove(self, deployment: str) -> None:
        self._deployments.pop(deployment, None)
        self._replicas = {key: item for key, item in self._replicas.items() if key[0] != deployment}

    async def put_replica(self, record: ReplicaRecord) -> None:
        if record.deployment in self._deployments:
            self._replicas[record.deployment, record.replica] = record

    async def replicas(self, deployment: str | None = None) -> Sequence[ReplicaRecord]:
        return [item for key, item in sorted(self._replicas.items()) if deployment in (None, key[0])]

    async def remove_replica(self, deployment: str, replica: int) -> None:
        self._replicas.pop((deployment, replica), None)

    async def begin(self, command_id: str, kind: str, deployment: str, at_ms: int) -> Literal["new", "begun", "done"]:
        if command_id not in self._done:
            self._done[command_id] = 0
            return "new"
        return "done" if self._done[command_id] else "begun"

    async def finish(self, command_id: str, at_ms: int) -> None:
        if self._done.get(command_id) == 0:
            self._done[command_id] = at_ms


class MemoryCatalog:
    """Twin of PostgresCatalog."""

    def __init__(self) -> None:
        self._models: dict[str, ModelRecord] = {}
        self._endpoints: dict[str, EndpointRecord] = {}

    async def put(self, models: Sequence[ModelRecord] = (), endpoints: Sequence[EndpointRecord] = ()) -> None:
        self._endpoints.update({item.endpoint: item for item in endpoints})
        self._models.update({item.name: item for item in models})

    async def remove(self, models: Sequence[str] = (), endpoints: Sequence[str] = ()) -> None:
        for name in models:
            self._models.pop(name, None)
        for endpoint in endpoints:
            self._endpoints.pop(endpoint, None)

    async def models(self) -> Sequence[ModelRecord]:
        return sorted(self._models.values(), key=lambda item: item.name)

    async def endpoints(self, pool: str | None = None) -> Sequence[EndpointRecord]:
        wanted = [item for item in self._endpoints.values() if pool in (None, item.pool)]
        return sorted(wanted, key=lambda item: item.endpoint)


class MemoryRequests:
    """Twin of PostgresRequests."""

    def __init__(self) -> None:
        self._requests: dict[str, RequestRecord] = {}
        self._facts: dict[tuple[str, str, int], FactRecord] = {}

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        before = set(self._requests)
        for fact in facts:
            self._facts.setdefault((fact.run, fact.kind, fact.attempt), fact)
        for request in requests:
            self._requests.setdefault(request.run, request)
        return frozenset(self._requests.keys() - before)

    async def find(self, access: Access, run: str) -> RequestRecord | None:
        found = self._requests.get(run)
        return found if found is not None and access.may_see(found.tenant) else None

    async def facts(self, access: Access, run: str) -> Sequence[FactRecord]:
        seen = [fact for fact in self._facts.values() if fact.run == run and access.may_see(fact.tenant)]
        return sorted(seen, key=lambda fact: (fact.at_ms, fact.attempt, fact.kind))

    async def page(self, access: Access, wanted: RequestFilter, *, after: Place | None = None, limit: int = 50) -> Page:
        rows = [row for row in self._requests.values() if access.may_see(row.tenant) and _fits(row, wanted)]
        rows.sort(key=_place, reverse=True)
        if after is not None:
            rows = [row for row in rows if _place(row) < (after.ended_ms, after.run)]
        return cut(rows[: limit + 1], limit)

    async def usage(
        self, access: Access, by: Literal["tenant", "key", "model"], since_ms: int, until_ms: int
    ) -> Sequence[UsageSum]:
        groups: dict[str, list[RequestRecord]] = defaultdict(list)
        span = RequestFilter(since_ms=since_ms, until_ms=until_ms)
        for row in self._requests.values():
            if access.may_see(row.tenant) and _fits(row, span):
                groups[{"tenant": row.tenant, "key": row.key_id, "model": row.model}[by]].append(row)
        sums = [_sum(name, rows) for name, rows in groups.items()]
        return sorted(sums, key=lambda item: (-item.cost_micros, item.name))


class MemoryArchive:
    """Twin of PostgresArchive."""

    def __init__(self, requests: MemoryRequests) -> None:
        self._requests = requests
        self._kept: dict[str, ArchiveRecord] = {}

    async def keep(self, records: Sequence[ArchiveRecord], now_ms: int) -> frozenset[str]:
        new = set()
        for record in records:
            same = {item.run: item for item in self._kept.values() if record.once and item.once == record.once}
            for run in [run for run, item in same.items() if item.expires_ms <= now_ms]:
                del self._kept[run], same[run]
            if not same and record.run not in self._kept:
                self._kept[record.run] = record
                new.add(record.run)
        return frozenset(new)

    async def find(self, tenant: str, run: str, now_ms: int) -> ArchiveRecord | None:
        return next((item for item in self._seen(tenant, now_ms) if item.run == run), None)

    async def find_once(self, tenant: str, names: Sequence[str], now_ms: int) -> ArchiveRecord | None:
        found = [item for item in self._seen(tenant, now_ms) if item.once and item.once in names]
        return min(found, key=lambda item: item.ended_ms, default=None)

    def _seen(self, tenant: str, now_ms: int) -> Sequence[ArchiveRecord]:
        return [item for item in self._kept.values() if item.tenant == tenant and item.expires_ms > now_ms]

    async def forget(self, tenant: str, run: str) -> bool:
        kept = self._kept.get(run)
        return kept is not None and kept.tenant == tenant and self._kept.pop(run) is kept

    async def spent(self, runs: Sequence[str]) -> frozenset[str]:
        rows = [await self._requests.find(OPERATOR, run) for run in runs]
        return frozenset(row.run for row in rows if row is not None and _is_spent(row))

    async def sweep(self, now_ms: int) -> int:
        gone = sorted(item.run for item in self._kept.values() if item.expires_ms <= now_ms)[:1000]
        for run in gone:
            del self._kept[run]
        return len(gone)


def _is_spent(row: RequestRecord) -> bool:
    """It ended without an answer to keep."""
    billed = row.prompt_tokens + row.completion_tokens > 0
    return row.outcome != "completed" and not (row.outcome == "failed" and billed)


def _place(row: RequestRecord) -> tuple[int, str]:
    return row.ended_ms, row.run


def _fits(row: RequestRecord, wanted: RequestFilter) -> bool:
    """Whether a row passes every filter."""
    pairs = (
        (wanted.tenant, row.tenant),
        (wanted.key_id, row.key_id),
        (wanted.model, row.model),
        (wanted.outcome, row.outcome),
        (wanted.status, row.status),
    )
    since, until = wanted.since_ms or 0, wanted.until_ms
    in_time = row.ended_ms >= since and (until is None or row.ended_ms < until)
    return in_time and all(asked in (None, found) for asked, found in pairs)


def _sum(name: str, rows: Sequence[RequestRecord]) -> UsageSum:
    return UsageSum(
        name=name,
        requests=len(rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        cached_tokens=sum(row.cached_tokens for row in rows),
        cost_micros=sum(row.cost_micros for row in rows),
    )
