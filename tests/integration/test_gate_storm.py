"""Three routers share two pools on a real Valkey while runs end in every way, endpoints come and go, one router is
killed and another joins. At the end every run has ended once, nobody waits, and the gate has forgotten everybody.

An endpoint never has more requests than slots while the seats stand. When a router joins or leaves, the others hear of
it within a second: until then, and until what was in hand has ended, it may have up to twice as many.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson
import pytest

from base.crypto import digest
from base.ids import SystemRandom
from providers.errors import ConnectFailed
from providers.fake import JSON, Cut, Delay, FakeResponse, FakeTransport, Head, Piece, Script
from providers.ports import Timeouts
from runtime.app import Context, RedisSettings, Stage, Workers
from runtime.door import Bounds, StreamDoor
from runtime.names import lane_key, prefix, push_channel, waiting_key
from runtime.topology import Topology, apply, load
from schemas.events import RequestAccepted
from schemas.outcomes import Delivery, Outcome
from schemas.ports import NewRun, Watch
from schemas.records import EndpointRecord
from state.memory import MemoryCatalog
from tests.router_support import CLOCK, RING, VERIFIER, NoCredentials, alone, completion, let_in
from tests.run_support import until
from workers.router.app import make_router, router_stage
from workers.router.handlers import Router
from workers.router.health import Peers
from workers.router.settings import BreakerSettings, RouterSettings

IDLE_MS = 1000
SETTINGS = RouterSettings(breaker=BreakerSettings(open_s=0.2, open_most_s=0.5, probe_s=0.3))
SLOTS = {"a1": ("A", 2), "b1": ("B", 4), "b2": ("B", 4)}  # endpoint -> pool, slots
TENANTS = ("t1", "t2", "t.3-_")
BUILD = SystemRandom()


class Engine(FakeTransport):
    """One endpoint, used by all routers. most: requests that it had at once since `most` was set back."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__([], CLOCK)
        self.chance, self.most = chance, 0

    def script_of(self, url: str) -> Script:
        self.most = max(self.most, self.open_now + 1)
        wait, luck = Delay(self.chance.uniform(0.0, 0.04)), self.chance.random()
        if luck < 0.04:
            return [wait, Head(503, JSON), Piece(b'{"error":{"message":"no"}}')]
        if luck < 0.08:
            return [Head(200, JSON), Piece(b"{"), wait, Cut()]
        return [Head(200, JSON), wait, Piece(completion())]


class Engines:
    """Implements providers.ports.Transport over all endpoints. gone: those that refuse connections."""

    def __init__(self, chance: random.Random) -> None:
        self.of = {name: Engine(chance) for name in SLOTS}
        self.gone: set[str] = set()

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        *,
        private: bool = False,
        method: str = "POST",
    ) -> FakeResponse:
        name = url.split("/")[2]
        if name in self.gone:
            raise ConnectFailed("it is away")
        return await self.of[name].open(url, headers, body, timeouts, private=private, method=method)

    async def close(self) -> None:
        """Nothing to free."""

    def check(self, times: int) -> None:
        """None had more requests at once than so many times its slots, since this was asked last."""
        most = {name: engine.most for name, engine in self.of.items()}
        for engine in self.of.values():
            engine.most = engine.open_now
        assert all(most[name] <= times * slots for name, (_, slots) in SLOTS.items()), most


def record(name: str, up: bool = True) -> EndpointRecord:
    """An endpoint as the catalog has it."""
    pool, slots = SLOTS[name]
    return EndpointRecord(
        endpoint=name, deployment=name, pool=pool, model=pool, url=f"http://{name}/v1", slots=slots, up=up, private=True
    )


async def pass_all(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
    """Authorization that lets everybody pass: the key's id is the tenant."""
    return [
        let_in(each, tenant=each.event.key_id, pool=each.event.model, lane=each.event.lane, cost=300)
        for each in deliveries
    ]


@dataclass
class Storm:
    """A door, an authorization and the routers that live."""

    url: str
    partitions: int
    chance: random.Random
    engines: Engines
    topology: Topology
    catalog: MemoryCatalog
    peers: Peers
    routers: dict[str, tuple[Context, Workers, Router]] = field(default_factory=dict)

    async def context(self, name: str) -> Context:
        settings = RedisSettings(url=self.url, allow_no_aof=True)
        return await Context.open(settings, name, CLOCK, BUILD, RING, self.topology, self.partitions)

    async def join(self, name: str) -> None:
        """One more router."""
        context = await self.context(name)
        router = make_router(SETTINGS, self.engines, self.catalog, NoCredentials(), VERIFIER, CLOCK, BUILD, self.peers)
        workers = Workers(context, [router_stage(router, self.catalog, lambda: ("A", "B"))], grace_s=2.0)
        await workers.start()
        self.routers[name] = context, workers, router

    async def kill(self, name: str) -> None:
        """As by SIGKILL: its connections break, it says nothing more."""
        context, workers, _ = self.routers.pop(name)
        await context.close()
        tasks = [task for engine in workers.engines for task in (*engine._loops, *engine._tasks)]
        tasks += [each._task for each in workers.announcers if each._task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def leave(self, name: str) -> None:
        """In order."""
        context, workers, _ = self.routers.pop(name)
        await workers.stop()
        await context.close()

    async def seated(self) -> None:
        """Every living router has its part of the slots, all of them together have all, and each reads accordingly."""
        wanted = Counter({"A": 2, "B": 8})

        def settled() -> bool:
            workers = [each for _, each, _ in self.routers.values()]
            told = Counter[str]()
            for each in workers:
                told.update(each.announcers[0]._places.capacity)
            return told == wanted and not any(one._reading.is_stale() for each in workers for one in each.engines)

        await until(settled)

    async def busy(self, name: str) -> None:
        """Until that router has requests at an endpoint."""
        await until(lambda: sum(self.routers[name][2].used().values()) > 0)

    @asynccontextmanager
    async def flapping(self) -> AsyncIterator[None]:
        """For the length of the block."""
        task = asyncio.create_task(self.flap())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def flap(self) -> None:
        """One endpoint of B after the other is away for a moment, told by the catalog or not."""
        while True:
            name, told = self.chance.choice(("b1", "b2")), self.chance.random() < 0.7
            if told:
                await self.catalog.publish(endpoints=[record(name, up=False)])
            else:
                self.engines.gone.add(name)
            await CLOCK.sleep(self.chance.uniform(0.05, 0.2))
            await asyncio.gather(*(router.share() for *_, router in self.routers.values()))
            self.engines.gone.discard(name)
            await self.catalog.publish(endpoints=[record(name)])
            await CLOCK.sleep(self.chance.uniform(0.05, 0.2))


@dataclass
class House:
    """The storm, and the clients before its door."""

    storm: Storm
    context: Context
    door: StreamDoor
    runs: list[str] = field(default_factory=list)

    async def client(self, number: int) -> str:
        """One request until its end, its outcome's kind; some leave before."""
        chance = self.storm.chance
        pool, body = ("A" if number % 5 == 0 else "B"), orjson.dumps({"model": "m", "messages": []})
        event = RequestAccepted(
            run=self.door.mint(), route="/v1/chat/completions", model=pool, stream=False,
            key_id=chance.choice((*TENANTS, TENANTS[0])), secret_mac="", mac_kid="t1", body_digest=digest(body),
            body_bytes=len(body), door=self.door.name, families=("authorization",), prompt_tokens=5,
            lane="batch" if number % 3 == 0 else "interactive",
        )  # fmt: skip
        leaves = chance.uniform(0.0, 0.5) if chance.random() < 0.15 else 0.0
        watch = await self.door.accept(NewRun(accepted=event, body=body, deadline_ms=20_000))
        self.runs.append(watch.run)
        if leaves:
            await CLOCK.sleep(leaves)
            await self.door.cancel(watch.run, "client")
        return await last_kind(watch)

    async def wave(self, count: int) -> Counter[str]:
        """So many clients at once; how their requests ended."""
        return Counter(await asyncio.gather(*(self.client(number) for number in range(count))))

    async def facts(self) -> Counter[str]:
        """Run -> terminal facts."""
        found: Counter[str] = Counter()
        for number in range(self.storm.partitions):
            rows = await self.context.redis.execute("XRANGE", f"{prefix(number)}:facts", "-", "+")
            found.update(dict(zip(flat[::2], flat[1::2], strict=True))[b"run"].decode() for _, flat in rows)
        return found

    async def left(self) -> dict[str, int]:
        """What stands in the lanes and before them."""
        found: dict[str, int] = {}
        for number in range(self.storm.partitions):
            for lane in (lane_key(prefix(number), pool, lane) for pool in "AB" for lane in ("interactive", "batch")):
                found[lane] = await self.context.redis.execute("XLEN", lane)
                found[waiting_key(lane)] = await self.context.redis.execute("ZCARD", waiting_key(lane))
        return {key: count for key, count in found.items() if count}

    async def is_empty(self) -> bool:
        """Whether nothing lies in a lane or waits before one."""
        return not await self.left()

    async def remembered(self) -> set[str]:
        """The kinds of keys that the gates still have."""
        keys = [key.decode() for key in await self.context.redis.execute("KEYS", "*:gate:*")]
        return {key.rpartition("|")[2].rpartition(":")[2] for key in keys if "|" in key}


async def last_kind(watch: Watch) -> str:
    """The kind of a run's last frame; none may follow it."""
    while True:
        frame = await watch.next(20.0)
        assert frame is not None, f"{watch.run} never ended"
        if frame.terminal:
            return frame.kind


def impatient() -> Topology:
    """The topology with a router group that takes over soon."""
    topology = load()
    cleared = topology.streams["cleared"]
    router = cleared.groups["router"].model_copy(update={"idle_limit": IDLE_MS})
    soon = cleared.model_copy(update={"groups": {"router": router}})
    return topology.model_copy(update={"streams": {**topology.streams, "cleared": soon}})


@asynccontextmanager
async def storm(url: str, partitions: int, seed: int) -> AsyncIterator[House]:
    """Three routers and a door."""
    chance, topology = random.Random(seed), impatient()
    made = Storm(
        url, partitions, chance, Engines(chance), topology, MemoryCatalog(endpoints=map(record, SLOTS)), alone(SETTINGS)
    )
    context = await made.context("door")
    await apply(topology, partitions, context.redis)
    door = StreamDoor(
        "door", partitions, context.scripts, context.runs, context.seals("ingress"), CLOCK, BUILD, Bounds()
    )
    channels = [push_channel(prefix(number), "door") for number in range(partitions)]
    await context.push.listen(channels, door.hub.hear, door.hub.missed)
    checks = Workers(context, [Stage(group="authorization", handler=pass_all)], grace_s=2.0)
    await checks.start()
    try:
        for name in ("r1", "r2", "r3"):
            await made.join(name)
        yield House(made, context, door)
    finally:
        for name in list(made.routers):
            await made.leave(name)
        await checks.stop()
        await context.close()


@pytest.mark.parametrize("partitions", [1, 4])
async def test_every_run_ends_once_whatever_happens_to_routers_and_engines(
    valkey_cluster: str, partitions: int
) -> None:
    async with storm(valkey_cluster, partitions, seed=partitions) as house:
        made = house.storm
        await made.seated()
        async with made.flapping():
            assert (await house.wave(150))["end"] > 75
            made.engines.check(1)
            wave = asyncio.create_task(house.wave(150))
            await made.busy("r2")
            await made.kill("r2")
            await made.join("r4")
            assert (await wave)["end"] > 75
            wave = asyncio.create_task(house.wave(150))
            await made.busy("r3")
            await made.leave("r3")
            assert (await wave)["end"] > 75
            made.engines.check(2)
        await until(house.is_empty)
        assert await house.facts() == Counter(house.runs), "every run ended exactly once"
        assert await house.remembered() <= {"slots", "passed"}
