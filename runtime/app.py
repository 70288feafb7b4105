"""Wiring of one process: what its rooms share, and the engines of the stages they declare.

A room's app.py gets a Context and answers with Stages; nothing else in the house connects anything to Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from base import logs, metrics
from base.clock import Clock
from base.crypto import KeyRing, Verifier
from base.ids import Random
from policy.durability import StrictRuns
from runtime.acts import Acts
from runtime.client import Address, Client
from runtime.consume import Engine, Handler
from runtime.disk import ALWAYS, WAITAOF, Disk, promise_of
from runtime.door import Bounds
from runtime.group_spec import Counters
from runtime.groups import Groups, RedisGroups
from runtime.handing import Handing
from runtime.jointly import Jointly
from runtime.leases import Leases, RunHandler
from runtime.names import lane_key, prefix, push_channel
from runtime.places import Announcer, Capacities, Places
from runtime.publish import StreamPublisher
from runtime.push import RedisPush
from runtime.rhythm import Rhythm
from runtime.runs import RedisRuns
from runtime.scripts import RedisScripts
from runtime.seals import Seals
from runtime.sentinel import Sentinels
from runtime.together import RedisPuller, SharedGroups, Together
from runtime.topology import Topology, TopologyError, load
from schemas.errors import HeadraceError

log = logs.room("runtime")

_READER_SILENCE_S = 12.0  # above the blocking time of a read
_DISK_GRACE_S = 2.0  # above the wait for a disk


class StrictError(HeadraceError):
    """The settings promise what this server cannot keep; says what to do."""


class RedisSettings(BaseModel):
    """Section `redis`: the server that carries the streams."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="redis://, rediss:// or unix:// address of the server, or redis+sentinel:// with the Sentinels' "
        "hosts and the master's name: redis+sentinel://:PASSWORD@HOST:26379,HOST:26379/MASTER/0.",
    )
    urls: dict[str, str] = Field(
        {},
        description="Addresses with a user of its own for processes of these rooms (`rules`, or `rules,persons` for a "
        "process with both); `headrace topology acl` writes the users. Others take `url`.",
    )
    allow_no_aof: bool = Field(False, description="Start on a server without AOF; a restart then loses live requests.")
    allow_plaintext: bool = Field(
        False, description="Speak to a server on another machine without TLS, where the way to it is safe."
    )
    appendfsync: Literal["everysec", "always"] = Field(
        "everysec",
        description="When the embedded server writes to disk: once a second, or before it answers (own servers have "
        "their own configuration).",
    )
    retention_s: int = Field(
        0,
        ge=0,
        description="Seconds that frames and state of an ended run stay readable, about 8 kB of memory a short run; "
        "0: what streams.yaml says of `reply`.",
    )

    @field_validator("url")
    @classmethod
    def _readable(cls, given: str) -> str:
        if "+sentinel://" in given:
            Address.parse(given)
        return given

    def of(self, rooms: Sequence[str]) -> RedisSettings:
        """As a process of these rooms connects."""
        return self.model_copy(update={"url": self.urls.get(",".join(rooms), self.url)})


class StrictSettings(BaseModel):
    """Section `runs.strict`: which runs are accepted only once they are on the server's disk. A request asks for it
    with `x-headrace-durability: strict`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    lanes: tuple[Literal["interactive", "batch"], ...] = Field(
        (), description="Lanes whose runs are strict; the lane is that of the caller's key."
    )
    models: tuple[str, ...] = Field((), description="Models whose runs are strict; names or patterns with *.")
    keys: tuple[str, ...] = Field((), description="Ids of keys whose runs are strict; ids or patterns with *.")
    wait_s: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Seconds an acceptance waits for the disk; then the answer is 503 and it is undone.",
    )
    replicas: int = Field(
        0, ge=0, le=5, description="Replicas that must have it on their disks too, so that it outlives a failover."
    )

    def rule(self) -> StrictRuns:
        """As the door asks it."""
        return StrictRuns(lanes=self.lanes, models=self.models, keys=self.keys)

    @property
    def is_asked(self) -> bool:
        """Whether anything here must be kept."""
        return bool(self.lanes or self.models or self.keys or self.replicas)

    def missing(self, promise: str) -> str:
        """What keeps a server with this promise (runtime.disk.promise_of) from what is asked here; "" nothing."""
        if not self.is_asked:
            return ""
        if promise == ALWAYS and self.replicas:
            return "runs.strict.replicas needs WAITAOF, which is not asked under appendfsync always; set it to 0"
        return "" if promise else _NO_PROMISE


_NO_PROMISE = (
    "runs.strict asks for runs that are on disk, and this server cannot say when something is: set appendfsync always "
    "(embedded: redis.appendfsync: always; own: CONFIG SET appendfsync always, and `headrace topology acl --strict` "
    "lets us see it), or take a server whose WAITAOF waits (Redis 7.2 and 8), or empty runs.strict"
)


class RunSettings(BaseModel):
    """Section `runs`: what a partition takes in, and how long things may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    most: int = Field(10_000, ge=1, description="Live runs of one partition; over it 503 with Retry-After.")
    most_wait: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Share of its deadline for which a request may be expected to be here, by how fast its key's and "
        "model's requests are answered now; over it 503 with Retry-After. 0: never refused for that.",
    )
    most_bytes: int = Field(1_000_000_000, ge=1_000_000, description="Bytes of bodies of live runs of one partition.")
    checks_s: float = Field(30.0, gt=0, description="Seconds for authorization and guards to answer about a run.")
    drain_s: float = Field(30.0, gt=0, description="Seconds a stopping worker may take to finish what it has in hand.")
    idle_limits: dict[str, Annotated[int, Field(ge=500, le=600_000)]] = Field(
        default_factory=dict,
        description="Milliseconds of silence after which others take over what a worker holds, by group; the same in "
        "every process; else what streams.yaml says.",
    )
    strict: StrictSettings = Field(
        default_factory=StrictSettings, description="Which runs are accepted only once they are on disk."
    )

    @field_validator("idle_limits")
    @classmethod
    def _known(cls, limits: dict[str, int]) -> dict[str, int]:
        try:
            load().with_idle_limits(limits)
        except TopologyError as error:
            raise ValueError(str(error)) from None
        return limits

    def bounds(self) -> Bounds:
        """As the door takes them."""
        return Bounds(
            most_runs=self.most,
            most_bytes=self.most_bytes,
            checks_ms=int(self.checks_s * 1000),
            most_wait=self.most_wait,
        )


@dataclass(slots=True, kw_only=True)
class Context:
    """What the rooms of one process share. consumer: this process's name in every group, unique."""

    consumer: str
    clock: Clock
    chance: Random
    ring: KeyRing
    topology: Topology
    partitions: int
    address: Address
    redis: Client
    push: RedisPush
    scripts: RedisScripts
    runs: RedisRuns
    sentinels: Sentinels | None = None
    rhythm: Rhythm = field(init=False)
    _readers: list[Client] = field(default_factory=list)
    _together: dict[str, tuple[Client, Together]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rhythm = Rhythm(self.clock, self.chance)

    @classmethod
    async def open(
        cls,
        settings: RedisSettings,
        consumer: str,
        clock: Clock,
        chance: Random,
        ring: KeyRing,
        topology: Topology,
        partitions: int,
    ) -> Context:
        """Connect. Unavailable when the server is away."""
        address = Address.parse(settings.url)
        sentinels = Sentinels(address, clock) if address.guarded else None
        redis = Client(address, clock, chance, name=consumer, sentinels=sentinels)
        await redis.connect()
        push = RedisPush(address, clock, chance, consumer, sentinels)
        await push.start()
        return cls(
            consumer=consumer,
            clock=clock,
            chance=chance,
            ring=ring,
            topology=topology,
            partitions=partitions,
            address=address,
            redis=redis,
            push=push,
            scripts=RedisScripts(redis, settings.retention_s * 1000 or topology.reply_ttl_ms),
            runs=RedisRuns(redis),
            sentinels=sentinels,
        )

    async def close(self) -> None:
        self.rhythm.close()
        await asyncio.gather(*(reader.close() for reader in self._readers))
        await self.push.stop()
        await self.redis.close()

    async def disk(self, settings: StrictSettings) -> Disk | RedisScripts | None:
        """For strict runs; None where the server cannot say what is on its disk. Unavailable; StrictError where the
        settings ask for what the server cannot give."""
        silence = settings.wait_s + _DISK_GRACE_S
        promise = await promise_of(self.redis, lambda: self._client("disk", _READER_SILENCE_S))
        if found := settings.missing(promise):
            raise StrictError(found)
        if promise != WAITAOF:
            return self.scripts if promise else None  # it answers after its disk anyway

        async def connect() -> Client:
            return await self._client("disk", silence)

        return Disk(connect, self.scripts.retention_ms, round(settings.wait_s * 1000), settings.replicas)

    def seals(self, publisher: str) -> Seals:
        """Hands that sign as `publisher`."""
        return Seals(self.ring, publisher, self.clock, self.chance)

    def publisher(self, name: str) -> StreamPublisher:
        """Publishing on commands and control as `name`."""
        return StreamPublisher(self.redis, self.topology, self.seals(name), self.clock, self.chance)

    async def reader(self, name: str) -> Client:
        """A connection that may block."""
        return await self._client(name, _READER_SILENCE_S)

    async def _client(self, name: str, silence: float) -> Client:
        client = Client(
            self.address,
            self.clock,
            self.chance,
            name=f"{self.consumer}:{name}",
            silence=silence,
            sentinels=self.sentinels,
        )
        await client.connect()
        return client

    async def groups(self, name: str, together: str = "") -> Groups:
        """What one engine asks of the server, over a connection that lives as long as this context: one of its own, or
        that of all engines of this process that read the stream `together`."""
        if not together:
            return RedisGroups(self.redis, await self._kept_reader(name))
        if together not in self._together:
            reader = await self._kept_reader(f"{name}+")
            puller = RedisPuller(self.redis, reader)
            self._together[together] = reader, Together(together, puller, self.clock)
        return SharedGroups(self.redis, *self._together[together])

    async def _kept_reader(self, name: str) -> Client:
        reader = await self.reader(name)
        self._readers.append(reader)
        return reader


class RunBodies:
    """Implements schemas.ports.Bodies."""

    def __init__(self, runs: RedisRuns, seals: Seals) -> None:
        self._runs, self._seals = runs, seals

    async def body(self, run: str, sealed: bytes = b"") -> bytes | None:
        """The opened body, or None when the run has ended."""
        found = sealed or await self._runs.checking_body(run)
        return self._seals.open_body(run, found) if found is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One group served by a room. Exactly one of handler (batches) and run_handler (claimed runs) is given.

    pools: for `router`, the pools that exist now; capacities: how many runs of each this process can take; seated:
    hears its place among the routers. concurrency: overrides streams.yaml. publisher: who signs, by default the group
    itself. until: awaited before this stage reads anything, while the others do."""

    group: str
    handler: Handler | None = None
    run_handler: RunHandler | None = None
    pools: Callable[[], Sequence[str]] | None = None
    capacities: Capacities | None = None
    seated: Callable[[int, int], None] = lambda place, routers: None
    concurrency: int | None = None
    publisher: str = ""
    until: Callable[[], Awaitable[object]] | None = None


@dataclass(slots=True)
class Workers:
    """The engines of all stages of a process, one per group and partition. heir_of: see Engine."""

    context: Context
    stages: Sequence[Stage]
    grace_s: float = 20.0
    heir_of: str = ""
    engines: list[Engine] = field(default_factory=list)
    announcers: list[Announcer] = field(default_factory=list)
    _jointly: Jointly = field(init=False)

    def __post_init__(self) -> None:
        served = {stage.group for stage in self.stages}
        families = [family for family in self.context.topology.families if family in served]
        self._jointly = Jointly(self.context.scripts, len(families))

    async def start(self) -> None:
        """Connect readers, create groups, begin, last the stages that wait for something. Unavailable when the server
        is away."""
        for stage in sorted(self.stages, key=lambda stage: stage.until is not None):
            if stage.until is not None:
                await stage.until()
            await self._begin(stage)

    async def _begin(self, stage: Stage) -> None:
        stream = self.context.topology.group_stream(stage.group)
        partitioned = self.context.topology.streams[stream].partitioned
        places = await self._places(stage)
        for number in range(self.context.partitions if partitioned else 1):
            engine = await self._engine(stage, stream, number, places)
            await engine.start()
            self.engines.append(engine)

    async def stop(self) -> None:
        """Announce nothing more, then all engines beside each other, each by its own sequence."""
        await asyncio.gather(*(announcer.stop() for announcer in self.announcers))
        await asyncio.gather(*(engine.stop(self.grace_s) for engine in self.engines))

    def wake(self, group: str) -> None:
        """The streams of a group changed."""
        for announcer in self.announcers:
            announcer.poke()
        for engine in self.engines:
            if engine.spec.group == group:
                engine.wake()

    def export(self) -> None:
        """Counters since the last call, into the metrics list."""
        for engine in self.engines:
            group, stream, counters = engine.spec.group, engine.spec.stream, engine.counters
            engine.counters = Counters()
            metrics.inc("headrace_handled_total", counters.handled, stream=stream, group=group, outcome="done")
            metrics.inc("headrace_handled_total", counters.failed, stream=stream, group=group, outcome="error")
            metrics.inc("headrace_redeliveries_total", counters.redelivered, stream=stream, group=group)
            metrics.inc("headrace_dlq_total", counters.dead, stream=stream, reason="handling")
            metrics.inc("headrace_owner_lost_total", counters.lost, action="beat")

    async def _places(self, stage: Stage) -> Places | None:
        """For runs that have places by pool: the places, announced; the gate opens before the engines read."""
        if stage.capacities is None:
            return None
        c, places = self.context, Places()
        prefixes = [prefix(number) for number in range(c.partitions)]
        announcer = Announcer(c.consumer, prefixes, places, stage.capacities, stage.seated, c.scripts, c.clock)
        places.on_change = lambda: self._room(stage.group)
        await announcer.start()
        self.announcers.append(announcer)
        return places

    def _room(self, group: str) -> None:
        for engine in self.engines:
            if engine.spec.group == group:
                engine.wake_for_room()

    async def _engine(self, stage: Stage, stream: str, number: int, places: Places | None) -> Engine:
        c = self.context
        seals = c.seals(stage.publisher or stage.group)
        spec = c.topology.spec(stream, stage.group)
        if stage.concurrency is not None:
            spec = spec.with_concurrency(stage.concurrency)
        leases = await self._leases(stage, seals, number) if stage.run_handler else None
        handler = leases.as_handler() if leases else stage.handler
        assert handler is not None, f"stage {stage.group} has no handler"
        together = self._together(stage, stream, number)
        engine = Engine(
            spec=spec,
            streams=_streams(c.topology, stage, stream, number),
            groups=await c.groups(f"{stage.group}:{number}", together),
            scripts=c.scripts,
            acts=Acts(c.scripts, c.runs, seals, self._jointly if together else None),
            handler=handler,
            consumer=c.consumer,
            verifier=Verifier(c.ring),
            clock=c.clock,
            chance=c.chance,
            places=places,
            heir_of=self.heir_of,
            rhythm=c.rhythm,
        )
        if leases is not None:
            leases.engine = engine
            self._jointly.routers[prefix(number)] = Handing(engine, leases, c.clock, c.chance)
        return engine

    def _together(self, stage: Stage, stream: str, number: int) -> str:
        """The key that the stage and others of this process read, each entry as soon as it is there; "" = it alone."""
        declared = self.context.topology.streams[stream]
        served = {other.group for other in self.stages}
        eager = {group for group, spec in declared.groups.items() if group in served and not spec.pace}
        return declared.key.replace("{p}", prefix(number)) if stage.group in eager and len(eager) > 1 else ""

    async def _leases(self, stage: Stage, seals: Seals, number: int) -> Leases:
        c = self.context
        assert stage.run_handler is not None
        leases = Leases(c.consumer, stage.run_handler, c.scripts, c.runs, seals, c.clock, c.chance)
        await c.push.listen([push_channel(prefix(number), c.consumer)], leases.hear, lambda: None)
        return leases


def _streams(topology: Topology, stage: Stage, stream: str, number: int) -> Callable[[], Sequence[str]]:
    """The keys that a stage reads in one partition, asked anew before each read."""
    p, declared = prefix(number), topology.streams[stream]
    if stage.pools is None:
        key = declared.key.replace("{p}", p)
        return lambda: (key,)
    pools = stage.pools
    return lambda: [lane_key(p, pool, lane) for pool in pools() for lane in declared.lanes]
