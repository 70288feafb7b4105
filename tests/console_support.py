"""What tests of provisioner and console share: a publisher that remembers, a pretend engine, an admin server."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from base.clock import Clock, SystemClock
from base.crypto import KeyRing, Sealer, new_ring_key
from base.ids import SystemRandom
from console.admin.app import build
from console.admin.parts import Parts
from console.admin.serve import AdminServer
from console.desks import KeyDesk, KeyWish, ModelDesk
from console.engine_logs import FileLogs
from console.routing import RoutingView
from console.scan_desk import make_scan_desk
from runtime.dlq import Letter
from runtime.inspect import ConsumerView, GroupLag
from schemas.commands import DeployModel
from schemas.envelope import Envelope, Event
from schemas.outcomes import Delivery
from schemas.ports import RunStatus
from schemas.records import ADMIN
from state.memory import MemoryCatalog, MemoryInflight, MemoryKeys, MemoryProcesses
from storage.memory import memory_store
from storage.ports import Store
from tests.router_support import alone
from workers.guardrails.settings import GuardrailSettings
from workers.router.settings import RouterSettings

ENGINE_PROGRAM = Path(__file__).with_name("engine_program.py")
RUN = "01936b00-0000-7000-8000-000000000001"


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    """The first true value of `what()`; AssertionError when it stays false."""
    clock = SystemClock()
    end = clock.monotonic() + seconds
    while True:
        found = await what()
        if found:
            return found
        assert clock.monotonic() < end, f"not within {seconds} s"
        await clock.sleep(0.02)


def engine_command(*more: str) -> tuple[str, ...]:
    """A program that lists one model on {port}."""
    return (sys.executable, str(ENGINE_PROGRAM), "{port}", "{name}", *more)


def ring() -> KeyRing:
    """A fresh key ring."""
    return KeyRing([new_ring_key(SystemRandom(), "t1")])


def deploy_model(command_id: str = "c1", **changes: Any) -> DeployModel:
    """A command for an external engine."""
    given = {
        "deployment": "small",
        "name": "small",
        "target": "external",
        "url": "http://127.0.0.1:9/v1",
        "private": True,
    }
    return DeployModel(command_id=command_id, **{**given, **changes})


def delivery(event: Any) -> Delivery:
    """A command as the runtime hands it over."""
    envelope = Envelope(id="1", type=type(event).__name__, v=1, by="console", data=msgspec.Raw(b"{}"))
    return Delivery(stream="commands", entry="1-0", envelope=envelope, event=event)


@dataclass(slots=True)
class Said:
    """A publisher that remembers. fail: raised by the next publications."""

    events: list[tuple[str, Event, str]] = field(default_factory=list)
    fail: Exception | None = None

    async def publish(self, stream: str, event: Event, *, id: str = "", run: str = "") -> str:
        if self.fail is not None:
            raise self.fail
        self.events.append((stream, event, id))
        return f"{len(self.events)}-0"

    def kinds(self) -> list[str]:
        return [type(event).__name__ for _, event, _ in self.events]


@dataclass(slots=True)
class Letters:
    """Dead letters in a dict."""

    letters: dict[str, Letter] = field(default_factory=dict)

    async def list(self, after: str = "", count: int = 100) -> Sequence[Letter]:
        return [letter for id, letter in sorted(self.letters.items(), reverse=True) if not after or id < after][:count]

    async def show(self, id: str) -> Letter | None:
        return self.letters.get(id)

    async def replay(self, id: str) -> str | None:
        return "9-0" if self.letters.pop(id, None) else None

    async def purge(self, ids: Sequence[str]) -> int:
        return sum(self.letters.pop(id, None) is not None for id in ids)


class Looks:
    """One group with a backlog."""

    async def lags(self) -> Sequence[GroupLag]:
        return [GroupLag(stream="{0}:facts", group="audit", length=3, lag=2, pending=1, oldest_ms=5, consumers=1)]

    async def live(self) -> int:
        return 4

    async def dead(self) -> int:
        return 1

    async def consumers(self) -> Sequence[ConsumerView]:
        here = {"stream": "{0}:facts", "group": "audit"}
        return [
            ConsumerView(**here, consumer="workers-1-abc", pending=1, idle_ms=20),
            ConsumerView(**here, consumer="workers-9-old", pending=0, idle_ms=9_000_000),
        ]

    async def dead_by_group(self) -> Mapping[tuple[str, str], int]:
        return {("{0}:facts", "audit"): 1}


class OneRun:
    """Knows RUN, which is live."""

    async def status(self, run: str) -> RunStatus | None:
        if run != RUN:
            return None
        return RunStatus(
            run=run,
            state="running",
            outcome="",
            key_id="k",
            tenant="acme",
            stream=True,
            sequence=3,
            epoch=1,
            times={"accepted": 1_000, "cleared": 1_005, "claimed": 1_006},
            detail={},
        )

    async def cancel(self, run: str, by: str) -> bool:
        return run == RUN


def letter(id: str = "0:1700000000000-0") -> Letter:
    """A dead letter."""
    entry = id.partition(":")[2]
    return Letter(
        id=id,
        stream="commands",
        group="provisioner",
        entry=entry,
        starts=3,
        reason="poison",
        run="",
        fields={"e": "{}"},
    )


@dataclass(slots=True)
class Desk:
    """An admin API over memory twins, its address and an admin key."""

    url: str
    token: str
    store: Store
    said: Said
    letters: Letters
    processes: MemoryProcesses
    parts: Parts
    data: Path


@asynccontextmanager
async def admin_server(data: Path, clock: Clock | None = None) -> AsyncIterator[Desk]:
    """A real HTTP server on a free port of the running loop."""
    said, letters = Said(), Letters()
    processes = MemoryProcesses(clock or SystemClock())
    parts = memory_parts(data, clock or SystemClock(), said, letters, processes)
    admin = await parts.key_desk.create(KeyWish(name="operator", scopes=(ADMIN,)))
    said.events.clear()
    server = AdminServer(build(parts), "127.0.0.1", 0, parts.clock)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        yield Desk(url, admin.token, parts.store, said, letters, processes, parts, data)
    finally:
        await server.stop()


def memory_parts(data: Path, clock: Clock, said: Said, letters: Letters, processes: MemoryProcesses) -> Parts:
    """What the admin API's routes use, without a server."""
    store, keys, house_ring, chance = memory_store(), MemoryKeys(), ring(), SystemRandom()
    sealer = Sealer(house_ring, chance)
    return Parts(
        store=store,
        keys=keys,
        key_desk=KeyDesk(keys=store.keys, projection=keys, publisher=said, ring=house_ring, clock=clock, chance=chance),
        model_desk=ModelDesk(deployments=store.deployments, publisher=said, ring=house_ring, sealer=sealer),
        runs=OneRun(),
        dead_letters=letters,
        inspector=Looks(),
        routing=memory_routing(clock),
        processes=processes,
        publisher=said,
        groups=("authorization", "audit"),
        engine_logs=FileLogs(data, clock),
        scan_desk=make_scan_desk(GuardrailSettings(), clock, chance),
        ring=house_ring,
        clock=clock,
    )


def memory_routing(clock: Clock) -> RoutingView:
    """Of a catalog without models."""
    return RoutingView(
        catalog=MemoryCatalog(),
        peers=alone(clock=clock),
        inflight=MemoryInflight(clock),
        settings=RouterSettings(),
        prices=(),
        clock=clock,
        chance=SystemRandom(),
    )
