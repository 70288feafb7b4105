"""What this room needs from below, and what a place for engines promises.

Target        where engines run                     targets/{local,external,fake}.py
Deployments   desired state, replicas and commands  storage/deployments.py, storage/memory.py
Catalog       what routers read                     state/catalog.py, state/memory.py
Inflight      which endpoints routers still use     state/inflight.py, state/memory.py
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from schemas.errors import HeadraceError
from schemas.records import DeploymentRecord, EndpointRecord, ModelRecord, ReplicaRecord

#: (deployment, sealed credential) -> the credential, "" for none. base.crypto.CryptoError when it does not open.
OpenCredential = Callable[[str, str], str]


class StartFailed(HeadraceError):
    """An engine that could not even be started; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a target is asked to run. digest: changes when any of it changes, so that an engine of an older wish is
    recognised. replica: which of the deployment's engines, from 1. credential: in the clear, for probes only."""

    deployment: str
    name: str
    digest: str
    replica: int = 1
    url: str = ""
    upstream_model: str = ""
    credential: str = field(default="", repr=False)
    private: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """Something that runs. url: base address incl. /v1. pid 0 = not a process of this machine; born: the kernel's
    start time of the process, which tells it from a later one with the same pid."""

    deployment: str
    digest: str
    url: str
    replica: int = 1
    pid: int = 0
    born: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """How an engine ended. status: its exit code, or minus the number of the signal that killed it; None = not known,
    because an earlier provisioner had started it."""

    status: int | None = None

    def __str__(self) -> str:
        if self.status is None:
            return "exit code unknown"
        if self.status >= 0:
            return f"exit code {self.status}"
        try:
            return f"killed by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"killed by signal {-self.status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One look at an engine. upstream_model: what to call it there. final: waiting will not mend it."""

    up: bool
    reason: str = ""
    upstream_model: str = ""
    final: bool = False


class Target(Protocol):
    """A place where engines run. Everything may be repeated; nothing is remembered that a restart would lose."""

    async def running(self) -> Sequence[Handle]:
        """What runs here for us, whoever started it: at most one per deployment and replica."""
        ...

    async def start(self, spec: Spec) -> Handle:
        """Start it, or return what already runs for this deployment, replica and digest. StartFailed."""
        ...

    async def probe(self, spec: Spec, handle: Handle) -> Health:
        """Whether it answers. Never raises for an engine's sake; a reason never carries a credential."""
        ...

    async def stop(self, handle: Handle) -> None:
        """End it, politely first. Returns when it is gone; nothing happens when it was."""
        ...

    def ended(self, deployment: str, replica: int) -> Exit | None:
        """How the last engine of this replica ended, None when none did or one runs."""
        ...


class Deployments(Protocol):
    """Desired state and the commands that were carried out. All raise Unavailable. Times: ms since the epoch."""

    async def begin(self, command_id: str, kind: str, deployment: str, at_ms: int) -> Literal["new", "begun", "done"]:
        """Note a command. begun: its worker may have died, do it again. done: leave it."""
        ...

    async def finish(self, command_id: str, at_ms: int) -> None:
        """The command was carried out."""
        ...

    async def find(self, deployment: str) -> DeploymentRecord | None: ...

    async def list(self) -> Sequence[DeploymentRecord]: ...

    async def put(self, record: DeploymentRecord) -> None: ...

    async def set_state(
        self, deployment: str, state: str, reason: str, at_ms: int, pid: int = 0, command_id: str | None = None
    ) -> DeploymentRecord | None:
        """Move it on; with command_id only while that is its last command. None: nothing was moved."""
        ...

    async def replicas(self, deployment: str | None = None) -> Sequence[ReplicaRecord]: ...

    async def put_replica(self, record: ReplicaRecord) -> None: ...

    async def remove_replica(self, deployment: str, replica: int) -> None: ...


class Catalog(Protocol):
    """Where routers read models and endpoints. All raise Unavailable."""

    async def publish(self, models: Iterable[ModelRecord] = (), endpoints: Iterable[EndpointRecord] = ()) -> None: ...

    async def withdraw(self, models: Sequence[str] = (), endpoints: Sequence[str] = ()) -> None: ...


class Use(Protocol):
    """An endpoint as routers use it. requests: running there. unsure: routers that might still send some."""

    @property
    def requests(self) -> int: ...

    @property
    def unsure(self) -> int: ...


class Inflight(Protocol):
    """What routers report of the endpoints they use. All raise Unavailable."""

    async def now_ms(self) -> int:
        """The time by which withdrawals are noted."""
        ...

    async def use(self, endpoint: str, since_ms: int) -> Use:
        """How an endpoint that was withdrawn at since_ms is used now."""
        ...
