"""What the routes are given, as one value: repositories, desks, and the runtime's eyes and hands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from base.clock import Clock
from base.crypto import KeyRing
from console.desks import KeyDesk, ModelDesk
from console.routing import RoutingView
from console.scan_desk import ScanDesk
from runtime.dlq import Letter
from runtime.inspect import ConsumerView, GroupLag
from schemas.ports import Keys, Publisher, RunStatus
from schemas.records import ProcessRecord
from storage.ports import Store


class Runs(Protocol):
    """Live runs: runtime/door.py."""

    async def status(self, run: str) -> RunStatus | None: ...

    async def cancel(self, run: str, by: str) -> bool: ...


class DeadLetters(Protocol):
    """runtime/dlq.py. Ids are `<partition>:<entry>`."""

    async def list(self, after: str = "", count: int = 100) -> Sequence[Letter]: ...

    async def show(self, id: str) -> Letter | None: ...

    async def replay(self, id: str) -> str | None: ...

    async def purge(self, ids: Sequence[str]) -> int: ...


class Inspector(Protocol):
    """runtime/inspect.py."""

    async def lags(self) -> Sequence[GroupLag]: ...

    async def live(self) -> int: ...

    async def dead(self) -> int: ...

    async def consumers(self) -> Sequence[ConsumerView]: ...

    async def dead_by_group(self) -> Mapping[tuple[str, str], int]: ...


class Processes(Protocol):
    """Who is there: state/processes.py."""

    async def list(self) -> Sequence[ProcessRecord]: ...


class EngineLogs(Protocol):
    """Output of local engines: console/engine_logs.py."""

    async def tail(self, deployment: str, lines: int, *, replica: int = 1, previous: bool = False) -> str | None:
        """The last lines, or those of the life before; None when there is no such log on this machine."""
        ...

    async def last_line(self, deployment: str, replica: int) -> str:
        """The last thing an engine said, "" when nothing is known."""
        ...

    def follow(self, deployment: str, lines: int, *, replica: int = 1) -> AsyncIterator[str]:
        """The last lines, then every line as it is written, until `close`."""
        ...

    def close(self) -> None:
        """The process stops: end what is followed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the routes use."""

    store: Store
    keys: Keys
    key_desk: KeyDesk
    model_desk: ModelDesk
    runs: Runs
    dead_letters: DeadLetters
    inspector: Inspector
    processes: Processes
    publisher: Publisher
    groups: tuple[str, ...]  # every one of streams.yaml
    engine_logs: EngineLogs
    routing: RoutingView
    scan_desk: ScanDesk
    ring: KeyRing
    clock: Clock
    rotation_overlap_s: int = 86_400


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Given = Annotated[Parts, Depends(_parts)]
