"""What the record can do: one Protocol per repository; PostgreSQL (keys.py ...) and memory.py both are it.

Every method may raise Unavailable. Access says on whose behalf; methods without it are the house's own business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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
from storage.access import Access


class Keys(Protocol):
    """API keys. A change here reaches the doors when the console projects it and says KeyChanged."""

    async def create(self, access: Access, record: KeyRecord) -> bool:
        """Note a new key and its tenant. False: the id is taken, nothing was changed."""
        ...

    async def find(self, key_id: str) -> KeyRecord | None:
        """By id, whosever it is, revoked ones included: this is how a tenant becomes known."""
        ...

    async def list(self, access: Access) -> Sequence[KeyRecord]:
        """By tenant, oldest first."""
        ...

    async def rotate(
        self, access: Access, key_id: str, secret_mac: str, mac_kid: str, overlap_until_ms: int
    ) -> KeyRecord | None:
        """A new secret; the old one stays valid until overlap_until_ms. None: no such key, or it is revoked."""
        ...

    async def revoke(self, access: Access, key_id: str, at_ms: int) -> KeyRecord | None:
        """End it for ever; revoking again changes nothing. None: no such key."""
        ...


class Deployments(Protocol):
    """What was asked for, how it stands, and which commands were carried out."""

    async def put(self, record: DeploymentRecord) -> None:
        """New, or replaced (created_ms stays as it was)."""
        ...

    async def find(self, deployment: str) -> DeploymentRecord | None: ...

    async def list(self) -> Sequence[DeploymentRecord]:
        """Oldest first."""
        ...

    async def set_state(
        self, deployment: str, state: str, reason: str, at_ms: int, pid: int = 0, command_id: str | None = None
    ) -> DeploymentRecord | None:
        """Move it on; with command_id only while that is its last command. None: nothing was moved."""
        ...

    async def put_replica(self, record: ReplicaRecord) -> None:
        """New, or replaced; nothing happens when there is no such deployment."""
        ...

    async def replicas(self, deployment: str | None = None) -> Sequence[ReplicaRecord]:
        """Of one deployment, or of all; by deployment and number."""
        ...

    async def remove_replica(self, deployment: str, replica: int) -> None:
        """Forget it; once or often."""
        ...

    async def remove(self, deployment: str) -> None:
        """Forget it and its replicas; once or often."""
        ...

    async def begin(self, command_id: str, kind: str, deployment: str, at_ms: int) -> Literal["new", "begun", "done"]:
        """Note a command. new: never seen. begun: seen, but nobody said it was finished (its worker may have died): do
        it again. done: leave it."""
        ...

    async def finish(self, command_id: str, at_ms: int) -> None:
        """It was carried out; once or often."""
        ...


class Catalog(Protocol):
    """Models and endpoints, as the provisioner will publish them again after Redis lost them."""

    async def put(self, models: Sequence[ModelRecord] = (), endpoints: Sequence[EndpointRecord] = ()) -> None:
        """New, or replaced, all or nothing."""
        ...

    async def remove(self, models: Sequence[str] = (), endpoints: Sequence[str] = ()) -> None:
        """By name and id; unknown ones don't matter."""
        ...

    async def models(self) -> Sequence[ModelRecord]:
        """By name."""
        ...

    async def endpoints(self, pool: str | None = None) -> Sequence[EndpointRecord]:
        """Of one pool, or all; by id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests; None lets all pass. Times: milliseconds since the epoch of the end, [since, until)."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    outcome: str | None = None
    status: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the next one begins after it."""

    ended_ms: int
    run: str


@dataclass(frozen=True, slots=True)
class Page:
    """Requests, newest first. next: None when this was the last page."""

    rows: Sequence[RequestRecord]
    next: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """What a tenant, key or model used. cost in micros."""

    name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_micros: int


class Requests(Protocol):
    """The record of ended runs. Rows are added once and never change."""

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        """All or nothing, as the operator. What is there already stays as it is. The runs whose row was new."""
        ...

    async def find(self, access: Access, run: str) -> RequestRecord | None: ...

    async def facts(self, access: Access, run: str) -> Sequence[FactRecord]:
        """Of one run, in order of time."""
        ...

    async def page(self, access: Access, wanted: RequestFilter, *, after: Place | None = None, limit: int = 50) -> Page:
        """Newest first; keyset paging, so a page costs the same however deep it lies."""
        ...

    async def usage(
        self, access: Access, by: Literal["tenant", "key", "model"], since_ms: int, until_ms: int
    ) -> Sequence[UsageSum]:
        """Sums over the runs that ended in [since, until); dearest first, then by name."""
        ...


class Archive(Protocol):
    """Answers that are kept for a while, sealed; see schemas.ports.Archive for those who read it."""

    async def keep(self, records: Sequence[ArchiveRecord], now_ms: int) -> frozenset[str]:
        """All or nothing, as the operator. What is there already, by run or by Idempotency-Key, stays as it is. The
        runs that were new."""
        ...

    async def find(self, tenant: str, run: str, now_ms: int) -> ArchiveRecord | None: ...

    async def find_once(self, tenant: str, names: Sequence[str], now_ms: int) -> ArchiveRecord | None: ...

    async def forget(self, tenant: str, run: str) -> bool: ...

    async def spent(self, runs: Sequence[str]) -> frozenset[str]: ...

    async def sweep(self, now_ms: int) -> int:
        """Forget what is not kept any more, 1,000 at a time; how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """All repositories over one database (or one memory)."""

    keys: Keys
    deployments: Deployments
    catalog: Catalog
    requests: Requests
    archive: Archive
