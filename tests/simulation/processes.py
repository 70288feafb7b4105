"""The processes of a simulated house, wired as console/wiring.py wires them: doors, and workers with every room.

A process is a home of the loop with a wire to the servers. Killed, stopped and continued it behaves as under SIGKILL,
SIGSTOP and SIGCONT; what it was is in its objects, which nobody else has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context as Vars
from contextvars import copy_context
from typing import Any, cast

from base.crypto import Verifier
from base.health import Health
from ingress.asked import parse_chat
from ingress.parts import Parts
from ingress.routes.work import Work
from ingress.stalls import Stalls
from runtime.app import Context, RunBodies, Stage, Workers
from runtime.client import Address, Client
from runtime.door import Bounds, StreamDoor
from runtime.groups import Groups
from runtime.names import prefix, push_channel
from runtime.push import RedisPush
from runtime.runs import RedisRuns
from runtime.scripts import RedisScripts
from runtime.sweeper import Sweeper
from runtime.together import Together
from schemas.errors import Unavailable
from schemas.ports import Archive, Limits, Redis
from schemas.routes import CHAT, MODERATIONS_POOL
from state.memory import MemoryCatalog, MemoryKeys
from tests.router_support import NoCredentials
from tests.simulation import settings
from tests.simulation.chance import SimClock, SimRandom
from tests.simulation.fleet import Engine, Ledger
from tests.simulation.loop import HOME, Home, VirtualLoop
from tests.simulation.ports import Remote, RemoteGroups, RemotePuller, RemotePush
from tests.simulation.wire import Wire
from workers.audit.app import build as build_audit
from workers.audit.ports import Kept, Record
from workers.authorization.app import build as build_authorization
from workers.guardrails.handlers import persons_guard, rules_guard
from workers.guardrails.policy import PERSONS, RULES
from workers.guardrails.scanners.persons_fake import ScriptedNames
from workers.router.app import make_router, router_stage
from workers.router.health import SHARE_S, Peers
from workers.router.ports import Breakers, Latencies

PARTITIONS = 1
_DOOR_BEAT_S = 5.0
_DRAIN_S = 5.0


class SimContext(Context):
    """A process's Context whose connections are a wire."""

    wire: Wire
    shared: dict[str, tuple[RemotePuller, Together]]

    async def groups(self, name: str, together: str = "") -> Groups:
        if not together:
            return RemoteGroups(self.wire)
        if together not in self.shared:
            puller = RemotePuller(self.wire)
            self.shared[together] = puller, Together(together, puller, self.clock)
        return RemoteGroups(self.wire, self.shared[together])


class Process:
    """What doors and workers have in common. make_wire: the world's, since it knows the servers."""

    def __init__(
        self, name: str, loop: VirtualLoop, seed: str, make_wire: Callable[[Process], Wire], catalog: MemoryCatalog
    ) -> None:
        self.name, self.loop = name, loop
        self.home = Home(name)
        self.vars: Vars = copy_context()
        self.vars.run(HOME.set, self.home)
        self.clock, self.chance = SimClock(loop), SimRandom(f"{seed}/{name}")
        self.tasks: list[asyncio.Task[Any]] = []
        self.ready = self.left = False
        self.catalog = catalog
        self.wire = make_wire(self)
        self.context = self._context()

    def _context(self) -> SimContext:
        made = SimContext(
            consumer=self.name,
            clock=self.clock,
            chance=self.chance,
            ring=settings.RING,
            topology=settings.topology(),
            partitions=PARTITIONS,
            address=Address.parse("redis://nowhere"),
            redis=cast(Client, Remote(self.wire, "commands")),
            push=cast(RedisPush, RemotePush(self.wire)),
            scripts=cast(RedisScripts, Remote(self.wire, "scripts")),
            runs=cast(RedisRuns, Remote(self.wire, "runs")),
        )
        made.wire, made.shared = self.wire, {}
        return made

    @property
    def alive(self) -> bool:
        return not self.home.dead and not self.left

    @property
    def serves(self) -> bool:
        return self.alive and self.ready and not self.home.halted

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        task = self.loop.create_task(work, context=self.vars.copy())
        self.tasks.append(task)
        return task

    def repeat(self, seconds: float, step: Callable[[], Awaitable[object]]) -> None:
        """As console.rooms.repeat."""

        async def again() -> None:
            while True:
                await self.clock.sleep(seconds)
                try:
                    await step()
                except Unavailable:
                    continue

        self.spawn(again())

    def kill(self) -> None:
        """SIGKILL: not one more line of it runs. What it has sent arrives."""
        self.home.dead = self.home.halted = True
        self.wire.hang_up()

    def stop(self) -> None:
        """SIGSTOP."""
        self.home.halted = True

    def go_on(self) -> None:
        """SIGCONT."""
        self.loop.wake(self.home)

    async def begin(self) -> None:
        """From start to ready. Unavailable: it ends with code 2."""
        raise NotImplementedError

    async def leave(self) -> None:
        """SIGTERM: the written stop sequence."""
        raise NotImplementedError

    def in_hand(self) -> dict[str, int]:
        """What it still works on, by name; nothing when all is well and quiet."""
        raise NotImplementedError


class Door(Process):
    """An ingress process. policy: what becomes of a run whose clients left."""

    policy = "cancel"

    async def begin(self) -> None:
        c = self.context
        door = self.door = StreamDoor(
            self.name,
            PARTITIONS,
            c.scripts,
            c.runs,
            c.seals("ingress"),
            self.clock,
            self.chance,
            Bounds(most_runs=100, most_bytes=1_000_000, checks_ms=int(settings.CHECKS_S * 1000)),
            archive=cast(Archive, Remote(self.wire, "archive")),
        )
        said = settings.server_settings(self.policy)
        self.health = Health("ingress")
        self.parts = Parts(
            name=self.name,
            settings=said,
            door=door,
            keys=MemoryKeys(settings.keys()),
            catalog=self.catalog,
            ring=settings.RING,
            clock=self.clock,
            health=self.health,
            stalls=Stalls(self.clock, said.stall_limit),
            families=tuple(c.topology.families),
            topology=c.topology.version,
            asyncapi=lambda: b"",
        )
        self.work = Work(self.parts, CHAT, parse_chat)
        channels = [push_channel(prefix(n), self.name) for n in range(PARTITIONS)]
        await c.push.listen(channels, door.hub.hear, door.hub.missed)
        await door.beat(cast(Redis, c.redis))
        self.repeat(_DOOR_BEAT_S, lambda: door.beat(cast(Redis, c.redis)))
        self.ready = True

    async def leave(self) -> None:
        """It takes nothing new, and ends when its clients have had their answers."""
        self.health.draining = True
        while self.door.hub.live or self.door._side:
            await self.clock.sleep(0.1)
        self.left = True

    def in_hand(self) -> dict[str, int]:
        return {"watches": self.door.hub.live, "farewells": len(self.door._side)} if self.ready else {}


class Worker(Process):
    """A process with authorization, both guards, the router, audit and ledger, and a sweeper."""

    ledger: Ledger
    make_engine = Engine

    async def begin(self) -> None:
        c = self.context
        self.engine = self.make_engine(self.ledger, self.clock)
        limits = cast(Limits, Remote(self.wire, "limits"))
        peers = Peers(
            breakers=cast(Breakers, Remote(self.wire, "breakers")),
            latencies=cast(Latencies, Remote(self.wire, "latencies")),
        )
        self.router = make_router(
            settings.ROUTER,
            self.engine,
            self.catalog,
            NoCredentials(),
            Verifier(c.ring),
            self.clock,
            self.chance,
            peers,
        )
        self.workers = Workers(c, self._stages(limits), grace_s=_DRAIN_S)
        await self.workers.start()
        self.sweeper = self._sweeper()
        await self.sweeper.start()
        self.repeat(SHARE_S, self.router.share)
        self.ready = True

    def _stages(self, limits: Limits) -> Sequence[Stage]:
        c = self.context
        record, kept = cast(Record, Remote(self.wire, "record")), cast(Kept, Remote(self.wire, "archive"))
        keys = MemoryKeys(settings.keys())
        return [
            *build_authorization(c, keys, self.catalog, limits, settings.AUTHORIZATION, _fail),
            *self._guards(),
            router_stage(self.router, self.catalog, lambda: (MODERATIONS_POOL, "pool")),
            *build_audit(c, record, kept, keys, limits, settings.AUDIT),
        ]

    def _guards(self) -> list[Stage]:
        """workers.guardrails.app.build, with names that are known in place of a language model."""
        names = ScriptedNames(settings.PERSON)
        rules = rules_guard(settings.POLICIES, self._bodies(RULES), self.clock)
        persons = persons_guard(settings.POLICIES, self._bodies(PERSONS), self.clock, names, 10_000)
        return [Stage(group=RULES, handler=rules.handle), Stage(group=PERSONS, handler=persons.handle)]

    def _bodies(self, family: str) -> RunBodies:
        return RunBodies(self.context.runs, self.context.seals(family))

    def _sweeper(self) -> Sweeper:
        c = self.context
        trims = {
            key: groups
            for name, key, groups in c.topology.keys(PARTITIONS)
            if c.topology.streams[name].retention == "acknowledged" and c.topology.streams[name].partitioned
        }
        return Sweeper(c.redis, c.scripts, c.runs, c.seals("sweeper"), self.clock, self.chance, PARTITIONS, trims)

    async def leave(self) -> None:
        await self.workers.stop()
        await self.sweeper.stop()
        self.left = True

    def in_hand(self) -> dict[str, int]:
        if not self.ready:
            return {}
        held = {f"entries of {engine.spec.group}": engine.in_hand for engine in self.workers.engines}
        return {**held, "endpoints in use": sum(self.router.used().values()), "open calls": self.engine.open_now}


def _fail(model: str, key_id: str, family: str) -> str:
    return settings.POLICIES.find(model, key_id).families[family].fail
