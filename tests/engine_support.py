"""What tests of the engine need: engines over a World, runs accepted with real signatures, handlers that tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from base.crypto import KeyRing, RingKey, Verifier
from base.ids import mint_run_id
from runtime.acceptance import Acceptance
from runtime.acts import Acts
from runtime.consume import Engine
from runtime.group_spec import Spec
from runtime.groups import Groups
from runtime.leases import Leases, RunHandler
from runtime.names import prefix
from runtime.places import Places
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas.events import RequestAccepted
from schemas.outcomes import Delivery, Done, Outcome
from tests.run_support import CHANCE, CLOCK, FAMILIES, LANE, POOL, RING, World, answer, open_gates, until

IDLE_MS = 250
PARTITION = 1
P = prefix(PARTITION)
REQUESTS, DLQ, LANE_KEY, FACTS = f"{P}:requests", f"{P}:dlq", f"{P}:cleared:{POOL}:{LANE}", f"{P}:facts"
TOPOLOGY = load()
FORGER = KeyRing([RingKey("t1", bytes(32))])

One = Callable[[Delivery], Awaitable[Outcome]]


def seals(publisher: str, ring: KeyRing = RING) -> Seals:
    return Seals(ring, publisher, CLOCK, CHANCE)


def request(run: str, **changes: Any) -> RequestAccepted:
    """An acceptance as the door would say it."""
    said: dict[str, Any] = {
        "run": run,
        "route": "/v1/chat/completions",
        "model": "m",
        "stream": True,
        "key_id": "k1",
        "secret_mac": "00",
        "mac_kid": "t1",
        "body_digest": "d",
        "body_bytes": 2,
        "door": "door",
        "families": FAMILIES,
    }
    return RequestAccepted(**{**said, **changes})


@dataclass
class House:
    """Engines over one world; `close` ends what still runs."""

    world: World
    engines: list[Engine] = field(default_factory=list)
    leases: Leases = field(init=False)  # of the last router

    async def accept(self, ring: KeyRing = RING, **changes: Any) -> str:
        """A signed run in `checking`, for which a router has room; its id."""
        await open_gates(self.world.scripts)
        run = mint_run_id(CLOCK, CHANCE, PARTITION)
        hands = seals("ingress", ring)
        e = wire.encode(request(run, **changes), id=run, by="ingress", run=run, deadline_ms=60_000)
        new = Acceptance(
            run=run,
            signed=wire.sign(hands.signer, "requests", e),
            body=seals("ingress").body(run, b"{}"),
            deadline_ms=60_000,
            checks_ms=30_000,
            most_runs=1_000,
            most_bytes=1_000_000,
            families=changes.get("families", FAMILIES),
            watcher="door#1",
            policy="cancel",
            key_id="k1",
            stream=True,
        )
        assert (await self.world.scripts.accept(new))[0]
        return run

    async def engine(
        self,
        handler: Any,
        *,
        name: str = "c1",
        stream: str = "requests",
        group: str = "rules",
        keys: Sequence[str] = (REQUESTS,),
        start: bool = True,
        places: Places | None = None,
        heir_of: str = "",
        groups: Groups | None = None,
        **spec: Any,
    ) -> Engine:
        """A consumer of a group; it runs unless told otherwise."""
        publishers = TOPOLOGY.streams[stream].publishers
        known: dict[str, Any] = {"idle_ms": IDLE_MS, "stream": stream, "group": group, "publishers": publishers}
        made = Engine(
            spec=Spec(**{**known, **spec}),
            streams=lambda: keys,
            groups=groups or await self.world.groups(),
            scripts=self.world.scripts,
            acts=Acts(self.world.scripts, self.world.runs, seals(group)),
            handler=handler,
            consumer=name,
            verifier=Verifier(RING),
            clock=CLOCK,
            chance=CHANCE,
            places=places,
            heir_of=heir_of,
        )
        if places is not None:
            places.on_change = made.wake_for_room
        self.engines.append(made)
        if start:
            await made.start()
        return made

    async def router(self, handler: RunHandler, name: str = "r1", **spec: Any) -> Engine:
        """A router: claims what is cleared and gives it to `handler`."""
        await open_gates(self.world.scripts)
        leases = Leases(name, handler, self.world.scripts, self.world.runs, seals("router"), CLOCK, CHANCE)
        await self.world.push.listen([f"{P}:push:{name}"], leases.hear, lambda: None)
        self.leases = leases
        made = await self.engine(
            leases.as_handler(),
            name=name,
            stream="cleared",
            group="router",
            keys=(LANE_KEY,),
            single=True,
            start=False,
            **spec,
        )
        leases.engine = made
        await made.start()
        return made

    async def ghost(self, group: str = "rules", keys: Sequence[str] = (REQUESTS,), count: int = 100) -> list[str]:
        """A consumer that reads entries and is never heard of again."""
        groups = await self.world.groups()
        for key in keys:
            await groups.ensure(key, group)
        return [row.entry for row in await groups.read(keys, group, "ghost", count, 50)]

    async def crash(self, engine: Engine) -> None:
        """As by SIGKILL: nothing is given back, nothing is said."""
        self.engines.remove(engine)
        tasks = [*engine._loops, *engine._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await asyncio.gather(*(engine.stop(0.05) for engine in self.engines))

    async def reasons(self) -> list[str]:
        """Why letters are dead."""
        return [fields[b"reason"].decode() for _, fields in await self.world.entries(DLQ)]

    async def settled(self, group: str = "rules") -> bool:
        """Whether the group has read everything and acknowledged it."""
        return await self.world.unread(REQUESTS, group) == 0 and not await self.world.pending(REQUESTS, group)


async def read_cleared(world: World, house: House) -> tuple[str, str]:
    """A cleared run and its entry, in the hands of a consumer `r1` that says nothing."""
    run = await house.accept()
    for family in FAMILIES:
        await world.scripts.verdict(answer(run, family))
    groups = await world.groups()
    await until(lambda: world.entries(LANE_KEY))
    await groups.ensure(LANE_KEY, "router")
    (row,) = await groups.read([LANE_KEY], "router", "r1", 1, 50)
    return run, row.entry


def each(one: One) -> Any:
    """A batch handler that does one after the other."""

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        return [await one(delivery) for delivery in deliveries]

    return handle


@dataclass
class Seen:
    """A handler that notes what it was given, waits while the gate is closed, and says Done."""

    runs: list[str] = field(default_factory=list)
    starts: dict[str, list[int]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        self.batches.append(len(deliveries))
        self.runs += [delivery.run for delivery in deliveries]
        for delivery in deliveries:
            self.starts.setdefault(delivery.run, []).append(delivery.starts)
        self.now += len(deliveries)
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += [delivery.run for delivery in deliveries]
            raise
        finally:
            self.now -= len(deliveries)
        return [Done() for _ in deliveries]
