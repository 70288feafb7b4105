"""One process of the house: the rooms it was given, wired together, from start to the written stop sequence.

This is the only place that sees every room (console/wiring.py opens them one by one). The supervisor forks and calls
`run`, `headrace start` calls `serve`. Start: connect, check the server, apply the topology, open the rooms, say
"ready". Stop (SIGTERM; or a drain: DRAIN, or DrainAsked with the name of this process): runtime/lifecycle.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import uvloop

from base import logs, metrics
from base.clock import SystemClock
from base.crypto import KeyRing, Verifier
from base.health import Health
from base.ids import SystemRandom, short_id
from base.version import version
from console.config import Settings
from console.config import load as load_settings
from console.forks import Message, write_message
from console.presence import Presence, make_record
from console.stack import DRAIN, ROOMS, Source
from runtime.app import Context, Stage, Workers
from runtime.broker import application
from runtime.client import Client
from runtime.control import Control
from runtime.inspect import laden_pools
from runtime.lifecycle import Stops
from runtime.sweeper import Sweeper
from runtime.topology import load, make_ready
from schemas.errors import HeadraceError, Unavailable
from schemas.events import CatalogChanged, DrainAsked
from schemas.routes import MODERATIONS_POOL
from state.shared import Shared
from storage.pool import Pool, open_pool
from storage.ports import Store
from storage.store import postgres_store

VERSION = version()
_POOLS_S = 1.0  # how often a router looks for new pools without being told
_EXPORT_S = 5.0

log = logs.room("process")


@dataclass(slots=True)
class Farewell:
    """Whether this process is to stop, and how long the work in its hands may take. patient: it was asked to drain
    while everything else goes on, so answers may be finished; else the machine or the system stops."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    patient: bool = False

    def stop(self) -> None:
        """Go through the stop sequence within runs.drain_s."""
        self.asked.set()

    def drain(self) -> None:
        """The same, with as much time as a door has: server.drain_limit."""
        self.patient = True
        self.asked.set()

    def grace_s(self, settings: Settings) -> float:
        """Seconds for what the stages hold."""
        longest = max(settings.runs.drain_s, settings.server.drain_limit)
        return longest if self.patient else settings.runs.drain_s


@dataclass(slots=True)
class House:
    """What the rooms of one process are built from, and what they leave to be started and stopped."""

    settings: Settings
    context: Context
    pool: Pool
    store: Store
    shared: Shared
    health: Health
    stops: Stops
    presence: Presence
    farewell: Farewell
    stages: list[Stage] = field(default_factory=list)
    before: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # started before the stages
    after: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # started once the stages run
    pools: tuple[str, ...] = ()
    catalog_changed: Callable[[], None] = lambda: None
    heir_of: str = ""
    addresses: dict[str, str] = field(default_factory=dict)  # room -> base URL, of the rooms that listen


def run(rooms: list[str], source: Source, ready_fd: int) -> None:
    """Serve `rooms` until SIGTERM. Implements console.stack.RunRooms; what hinders the start is one line, exit 2."""
    settings = load_settings(source.file, overrides=source.overrides)
    serve(rooms, settings, lambda message: write_message(ready_fd, message), source.heir_of)


def serve(rooms: Sequence[str], settings: Settings, say_ready: Callable[[Message], None], heir_of: str = "") -> None:
    """Serve `rooms` in this process until it is told to stop; say_ready hears one message, see RunRooms. heir_of: see
    Source."""
    logs.setup(settings.log.level, form=settings.log.form, process=_title(rooms))
    settings = settings.model_copy(update={"redis": settings.redis.of(rooms)})
    try:
        uvloop.run(_serve(list(rooms), settings, say_ready, heir_of))
    except (HeadraceError, OSError, ValueError) as error:
        log.error("cannot start", reason=str(error))
        raise SystemExit(2) from None


def _title(rooms: Sequence[str]) -> str:
    return rooms[0] if len(rooms) == 1 else "workers"


async def _serve(rooms: list[str], settings: Settings, say_ready: Callable[[Message], None], heir_of: str) -> None:
    stops = Stops(SystemClock())
    farewell = Farewell()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, farewell.stop)
    loop.add_signal_handler(DRAIN, farewell.drain)
    house = await _open(rooms, settings, stops, farewell)
    house.heir_of = heir_of
    try:
        await _start(house, rooms)
        await _announce(house, rooms)
        say_ready(_ready(house, rooms))
        await farewell.asked.wait()
    finally:
        house.health.draining = True
        log.info("stopping", rooms=rooms, patient=farewell.patient)
        await house.presence.tell_if_possible()
        await stops.run()


async def _announce(house: House, rooms: Sequence[str]) -> None:
    """Be known to `headrace status` from now until everything but the connections has stopped."""
    c = house.context
    await house.presence.enter(
        make_record(c.consumer, tuple(rooms), house.health, house.addresses, VERSION, c.clock.now_ms())
    )


async def _open(rooms: list[str], settings: Settings, stops: Stops, farewell: Farewell) -> House:
    """Connections, record, shared state, then each room's parts."""
    from console.wiring import ROOMS

    clock, chance = SystemClock(), SystemRandom()
    ring = KeyRing.parse(settings.secrets.keyring.get_secret_value())
    topology = load().with_idle_limits(settings.runs.idle_limits)
    consumer = f"{_title(rooms)}-{os.getpid()}-{short_id(chance, 6)}"  # in containers the pid tells nobody apart
    context = await Context.open(settings.redis, consumer, clock, chance, ring, topology, settings.partitions)
    stops.add("connections", context.close, 5.0)
    await make_ready(topology, settings.partitions, context.redis, allow_no_aof=settings.redis.allow_no_aof)
    p = settings.postgres
    pool = await open_pool(
        p.dsn,
        size=p.pool_size,
        connect_s=p.connect_timeout,
        statement_s=p.statement_timeout,
        acquire_s=p.acquire_timeout,
        role=p.role,
    )
    stops.add("postgres", pool.close, 5.0)
    store = postgres_store(pool)
    shared = Shared.over(context.redis, store.keys.find, clock, ring)
    health = Health("+".join(rooms))
    presence = Presence(shared.processes, consumer, health, clock)
    stops.add("health", health.stop, 2.0)
    stops.add("presence", presence.leave, 2.0)
    house = House(settings, context, pool, store, shared, health, stops, presence, farewell)
    for room in rooms:
        await ROOMS[room](house)
    return house


async def _start(house: House, rooms: list[str]) -> None:
    """In order: control (so that no change is missed), what the stages need, the stages, the doors, health."""
    context, stops = house.context, house.stops
    reader = await context.reader("control")
    stops.add("control connection", reader.close, 2.0)
    await _follow_control(house, reader)
    for begin in house.before:
        await begin()
    if house.stages:
        await _start_stages(house)
    for begin in house.after:
        await begin()
    metrics.gauge("headrace_build_info", 1, version=VERSION, room=house.health.room)
    house.health.add("redis", _redis_check(context))
    first = house.settings.metrics.port
    await house.health.start(house.settings.metrics.host, first + ROOMS.index(rooms[0]) if first else 0)


async def _follow_control(house: House, reader: Client) -> None:
    def hear(event: object) -> None:
        house.shared.hear(event)
        if isinstance(event, CatalogChanged):
            house.catalog_changed()
        elif event == DrainAsked(consumer=house.context.consumer):
            log.info("asked to drain", consumer=house.context.consumer)
            house.farewell.drain()

    control = Control(
        reader,
        house.context.topology,
        Verifier(house.context.ring),
        house.context.clock,
        house.context.chance,
        hear,
        house.shared.forget,
    )
    await control.start()
    house.stops.add("control", control.stop, 2.0)


async def _start_stages(house: House) -> None:
    """All stages of this process as one FastStream application, the sweeper beside them."""
    c = house.context
    workers = Workers(c, house.stages, heir_of=house.heir_of)
    app = application(house.settings.redis.url, c.topology, workers, house.stages)
    await _look_at_pools(house, workers)

    async def stop() -> None:
        workers.grace_s = house.farewell.grace_s(house.settings)
        async with asyncio.timeout(workers.grace_s + 5.0):
            await app.stop()

    house.stops.add("stages", stop, Farewell(patient=True).grace_s(house.settings) + 10.0)
    await app.start()  # stages begin one after another: those that have are stopped too when a later one fails
    trims = {
        key: groups
        for name, key, groups in c.topology.keys(c.partitions)
        if c.topology.streams[name].retention == "acknowledged"
    }
    sweeper = Sweeper(c.redis, c.scripts, c.runs, c.seals("sweeper"), c.clock, c.chance, c.partitions, trims)
    await sweeper.start()
    house.stops.add("sweeper", sweeper.stop, 2.0)
    house.catalog_changed = _look_now(house, workers)
    repeat(house, _POOLS_S, lambda: _look_at_pools(house, workers))
    repeat(house, _EXPORT_S, lambda: _export(workers))


async def _export(workers: Workers) -> None:
    workers.export()


def _look_now(house: House, workers: Workers) -> Callable[[], None]:
    """For CatalogChanged: the first request of a new model must not wait for the next regular look."""
    looks: set[asyncio.Task[None]] = set()

    def look() -> None:
        task = asyncio.create_task(_look_at_pools(house, workers))
        looks.add(task)
        task.add_done_callback(looks.discard)

    return look


async def _look_at_pools(house: House, workers: Workers) -> None:
    """The built-in pool, those of the catalog, and those that lost their model while runs wait there: a router must
    tell them so. A new one makes the router read its lanes."""
    try:
        known = {MODERATIONS_POOL, *(model.pool for model in await house.shared.catalog.models())}
        known |= await laden_pools(house.context.redis, house.context.partitions)
    except Unavailable:
        return
    pools = tuple(sorted(known))
    if pools != house.pools:
        house.pools = pools
        workers.wake("router")


def repeat(house: House, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    """Call `step` every `seconds`, or a little sooner, together with what else this process repeats, until it stops."""

    async def loop() -> None:
        while True:
            await house.context.rhythm.rest(seconds)
            try:
                await step()
            except Unavailable as error:
                log.warning("a periodic step waits for a store that is away", reason=str(error))
            except Exception:
                log.exception("a periodic step failed")

    task = asyncio.create_task(loop())

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    house.stops.add("timer", stop, 1.0)


def _redis_check(context: Context) -> Callable[[], Awaitable[str]]:
    async def check() -> str:
        await context.redis.execute("PING")
        return ""

    return check


def _ready(house: House, rooms: Sequence[str]) -> Message:
    gc.collect()
    gc.freeze()  # what stands now stands till the end: the collector need not look at it again
    gc.set_threshold(10_000, 5, 5)  # a run makes thousands of objects and few cycles; what is left of these is little
    consumer, port = house.context.consumer, house.health.port
    log.info("ready", rooms=list(rooms), consumer=consumer, health_port=port, **house.addresses)
    return {
        "rooms": list(rooms),
        "pid": os.getpid(),
        "health_port": port,
        "consumer": consumer,
        "addresses": house.addresses,
    }
