"""What rooms need from below, as Protocols: used by two rooms or more. A room's own needs stand in its ports.py.

    Redis          one server as the house speaks to it      runtime/client.py
    Door, Watch    accept a run, watch its reply             runtime/door.py       ingress (and console)
    Archive        kept answers                              storage/archive.py    ingress (through its door)
    RunLease       own a claimed run until its end           runtime/run.py        router
    Keys           key records, cached, revocable            state/keys.py         ingress, authorization
    Catalog        models and endpoints as published         state/catalog.py      ingress, authorization, router
    Limits         reservations of an organization           state/limits.py       authorization, ledger
    Publisher      put an event or command on a stream       runtime/publish.py    console, provisioner

Every implementation has a memory twin that passes the same contract suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from base.alarm import Alarm
from schemas.envelope import Event
from schemas.events import RequestAccepted, Terminal
from schemas.frames import Frame
from schemas.records import ArchiveRecord, EndpointRecord, KeyRecord, ModelRecord


class Redis(Protocol):
    """One Redis or Valkey server. Commands sent in one turn of the loop leave in one write (pipelining is implicit).

    Replies are RESP values with bytes; server errors raise, a lost connection raises schemas.errors.Unavailable."""

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        """One command and its reply."""
        ...

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """A Lua script by its digest (loaded when the server does not know it)."""
        ...


# --- the door ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """An Idempotency-Key as one key of the ring names it, and a MAC of what was asked under it, by the same key."""

    name: str
    asked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """What makes two requests the same one. marks: by each key of the ring, the current one first. spread: chooses the
    partition, the same under every ring. tenant: whose archive may answer."""

    marks: tuple[Mark, ...]
    spread: int
    tenant: str


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """What acceptance needs. body: the normalised JSON. deadline_ms: the run's hard budget from now. once: it came with
    an Idempotency-Key; the run that it becomes then has an id of its own making, not the one in `accepted`, and is kept
    for a time (accepted.keep_ms > 0). strict: accepted only once it is on disk."""

    accepted: RequestAccepted
    body: bytes
    deadline_ms: int
    trace: str = ""
    once: Once | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run as its hash shows it. state: checking | queued | running | ended. outcome when ended. accepted: as it came,
    its signature unproven; None = unreadable."""

    run: str
    state: str
    outcome: str
    key_id: str
    tenant: str
    stream: bool
    sequence: int
    epoch: int
    times: Mapping[str, int]
    detail: Mapping[str, str]
    accepted: RequestAccepted | None = None


class Direct(Protocol):
    """A client that can be given frames without waking the task that serves it."""

    def ready(self) -> bool:
        """Whether it takes one in this turn of the loop; nobody else is sending to it."""
        ...

    def put(self, frame: Frame) -> None:
        """Send it; only after `ready`."""
        ...


class Watch(Protocol):
    """One client's view of one run: frames in order, none missing, none twice."""

    run: str
    replayed: bool  #: the run was there before the request that watches it now
    direct: Direct | None  #: gets data frames that arrive while nothing is queued; all others are for `next`

    async def next(self, timeout: float) -> Frame | None:
        """The next frame, or None after `timeout` seconds of silence (send a keep-alive, call again).

        Refusal(upstream_interrupted) when a later owner started below what was already handed out;
        Refusal(not_found) when the stream expired under the reader; Refusal(cancelled) once it has left; Unavailable
        when Redis stayed away all the time."""
        ...

    async def leave(self, reason: str = "left") -> None:
        """The client is gone: drop this watcher; with the last one the run's disconnect policy fires. Idempotent."""
        ...

    def close(self) -> None:
        """Free what this watch holds in the process; after a terminal frame nothing else is needed. Idempotent."""
        ...


class Door(Protocol):
    """Acceptance and watching, for the ingress."""

    def mint(self) -> str:
        """A new run id."""
        ...

    async def accept(self, new: NewRun) -> Watch:
        """Make the run durable and watch it; with an Idempotency-Key that had a run, watch that one from its start.
        Refusal(overloaded) with retry_after_ms over the bound, Refusal(idempotency_key_reused) when the key came with
        another request; Unavailable when a store cannot do its part."""
        ...

    async def attach(self, run: str, after: int) -> Watch:
        """Watch a run again from event `after` + 1, live or ended. Refusal(not_found) when it is unknown or gone."""
        ...

    def replay(self, kept: ArchiveRecord, after: int) -> Watch:
        """Watch an archived run from event `after` + 1."""
        ...

    async def status(self, run: str) -> RunStatus | None:
        """The run's hash, or None."""
        ...

    async def body(self, run: str | ArchiveRecord) -> bytes | None:
        """The run's body, opened: while it lives, and afterwards where it is kept. None = it is no longer there."""
        ...

    def told(self, run: str | ArchiveRecord) -> AsyncIterator[bytes]:
        """The events of a run's stream that went out so far, whole events at a time, from the first; nobody counts as
        watching. How it ended is no part of it where that was an error. Unavailable."""
        ...

    async def forget(self, run: str) -> bool:
        """Delete the answer of an ended run. False when it has not ended or is not here."""
        ...

    async def cancel(self, run: str, by: str) -> bool:
        """End it wherever it stands. False when it had ended or is unknown."""
        ...


class Archive(Protocol):
    """Answers that are kept longer than Redis has them, sealed. Only what has not expired at now_ms is found."""

    async def find(self, tenant: str, run: str, now_ms: int) -> ArchiveRecord | None:
        """By run. Unavailable."""
        ...

    async def find_once(self, tenant: str, names: Sequence[str], now_ms: int) -> ArchiveRecord | None:
        """By the names of an Idempotency-Key. Unavailable."""
        ...

    async def forget(self, tenant: str, run: str) -> bool:
        """Delete it; whether it was there. Unavailable."""
        ...

    async def spent(self, runs: Sequence[str]) -> frozenset[str]:
        """Those of the runs that are on record as ended without an answer to keep. Unavailable."""
        ...


# --- owning a run -----------------------------------------------------------------------------------------------


#: Hears whether a frame is stored.
Stored = Callable[[bool], None]


class RunLease(Protocol):
    """A claimed run. Every write checks the owner first and raises OwnerLost when another consumer has it.

    A run may be begun while its claim is under way, where that is as good as certain: then it is not `claimed` yet, and
    every write waits for that. Should the claim not come, the lease is lost as one that was taken over."""

    run: str
    epoch: int
    sequence: int  #: last event sent so far, by any owner
    accepted: RequestAccepted
    accepted_ms: int  #: when it became a run, by the server's clock, ms since the epoch
    body: bytes  #: opened; the normalised JSON
    verdicts: Mapping[str, bytes]  #: as stored; verify with schemas.verdicts.open_verdict
    deadline_s: float  #: seconds left at the claim; until it is here, by this process's wall clock
    cancelled: Alarm  #: set when someone cancels, the deadline was swept or the lease was lost
    by: str  #: who cancelled, as RequestCancelled names them: client | lost | operator
    claimed: bool  #: the claim is here

    async def confirmed(self) -> None:
        """Once it is claimed. OwnerLost when it will not be, or is another's by now."""
        ...

    async def flush(
        self, payload: bytes, events: int, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        """Store one data frame and push it to the watchers, atomically. events >= 1 whole SSE events. said: how many
        events carried what was generated, by all owners, these too: what is billed when somebody else ends the run."""
        ...

    def offer(
        self, payload: bytes, events: int, told: Stored, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        """The same without waiting: `told` hears whether it is stored. If not, `flush` the same again: that stores it,
        once, or says why not. Nothing else is written meanwhile."""
        ...

    async def delivered(self) -> bytes | None:
        """The events that were sent so far, by any owner, as they went out; None when they are not all kept."""
        ...

    async def end(
        self, kind: str, payload: bytes, events: int, fact: Terminal, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store the last frame (END or ERROR), the terminal fact, acknowledge, free. Idempotent for this owner."""
        ...


# --- what replicas share ------------------------------------------------------------------------------------------


class Keys(Protocol):
    """Key records by id: an in-process cache over the Redis projection over PostgreSQL."""

    async def find(self, key_id: str) -> KeyRecord | None:
        """The record, revoked ones included; None when no such key. Unavailable when no store answers and it was
        never seen."""
        ...


class Catalog(Protocol):
    """Models and endpoints as the provisioner published them, cached in the process, refreshed by CatalogChanged."""

    async def model(self, name: str) -> ModelRecord | None: ...

    async def models(self) -> Sequence[ModelRecord]: ...

    async def endpoints(self, pool: str) -> Sequence[EndpointRecord]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One limited thing of an organization: `key:<id>` (later team, org). 0 = no limit."""

    name: str
    requests_per_minute: int = 0
    concurrency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A run wants one request in every scope; ttl_ms: the run's deadline + 60 s, after which it frees itself."""

    run: str
    tenant: str
    scopes: tuple[Scope, ...]
    ttl_ms: int


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """granted, or which scope and limit said no. The figures are of the tightest requests/min limit (-1 = none)."""

    granted: bool
    scope: str = ""
    limit: str = ""
    limit_requests: int = -1
    remaining_requests: int = -1
    reset_requests_ms: int = 0
    retry_after_ms: int = 0


class Limits(Protocol):
    """Requests per minute and concurrency as expiring members named by run id, in the organization's slot."""

    async def reserve(self, wanted: Sequence[Reservation]) -> Sequence[Reserved]:
        """Answers in order; asking again for the same run gives the same answer and no second hold."""
        ...

    async def settle(self, tenant: str, run: str, scopes: Sequence[str]) -> None:
        """The run ended: free its concurrency. Once or often, before or after expiry: the same."""
        ...


class Publisher(Protocol):
    """Signed events and commands onto declared streams; refuses what streams.yaml does not allow this room to say."""

    async def publish(self, stream: str, event: Event, *, id: str = "", run: str = "") -> str:
        """The entry's id. `stream` is a name of streams.yaml without partition: commands, control."""
        ...


class Bodies(Protocol):
    """The sealed body of a run, opened, for those who judge it."""

    async def body(self, run: str, sealed: bytes = b"") -> bytes | None:
        """The normalised JSON, or None when the run is no longer in `checking` (decided: just acknowledge). sealed: the
        body as it lies, for whoever has it already."""
        ...
