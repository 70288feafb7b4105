"""One process of the house: the rooms it was given, wired together, from start to the written stop sequence.

This is the only place that sees every room (console/wiring.py opens them one by one). The supervisor forks and calls
`run`. Start: connect, check the server, apply the topology, open the rooms, say "ready" on the given
file descriptor. Stop (SIGTERM): runtime/lifecycle.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvloop

from base import logs, metrics
from base.clock import SystemClock
from base.crypto import KeyRing, Verifier
from base.health import Health
from base.ids import SystemRandom, short_id
from console.config import Settings
from console.config import load as load_settings
from console.forks import write_message
from console.stack import ROOMS, Source
from runtime.app import Context, Stage, Workers
from runtime.broker import application
from runtime.client import Client
from runtime.control import Control
from runtime.inspect import laden_pools
from runtime.lifecycle import Stops
from runtime.sweeper import Sweeper
from runtime.topology import TopologyError, UnsafeServer, load, make_ready
from schemas.errors import Unavailable
from schemas.events import CatalogChanged
from schemas.routes import MODERATIONS_POOL
from state.shared import Shared
from storage.pool import Pool, open_pool
from storage.ports import Store
from storage.store import postgres_store

VERSION = "0.1.0"
_POOLS_S = 1.0  # how often a router looks for new pools without being told
_EXPORT_S = 5.0

log = logs.room("process")


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
    stages: list[Stage] = field(default_factory=list)
    before: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # started before the stages
    after: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # started once the stages run
    pools: tuple[str, ...] = ()
    catalog_changed: Callable[[], None] = lambda: None


def run(rooms: list[str], source: Source, ready_fd: int) -> None:
    """Serve `rooms` until SIGTERM. Implements console.stack.RunRooms; what hinders the start is one line, exit 2."""
    settings = load_settings(source.file, overrides=source.overrides)
    logs.setup(settings.log.level, form=settings.log.form, process=rooms[0] if len(rooms) == 1 else "workers")
    try:
        uvloop.run(_serve(rooms, settings, ready_fd))
    except (Unavailable, UnsafeServer, TopologyError, ValueError) as error:
        log.error("cannot start", reason=str(error))
        raise SystemExit(2) from None


async def _serve(rooms: list[str], settings: Settings, ready_fd: int) -> None:
    stops = Stops(SystemClock())
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    house = await _open(rooms, settings, stops)
    try:
        await _start(house, rooms)
        _say_ready(house, rooms, ready_fd)
        await stopping.wait()
    finally:
        house.health.draining = True
        await stops.run()


async def _open(rooms: list[str], settings: Settings, stops: Stops) -> House:
    """Connections, record, shared state, then each room's parts."""
    from console.wiring import ROOMS

    clock, chance = SystemClock(), SystemRandom()
    ring = KeyRing.parse(settings.secrets.keyring.get_secret_value())
    topology = load()
    consumer = f"{rooms[0] if len(rooms) == 1 else 'workers'}-{os.getpid()}-{short_id(chance, 3)}"
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
    house = House(settings, context, pool, store, shared, health, stops)
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
    stops.add("health", house.health.stop, 2.0)


async def _follow_control(house: House, reader: Client) -> None:
    allowed = frozenset(house.context.topology.streams["control"].publishers)

    def hear(event: object) -> None:
        house.shared.hear(event)
        if isinstance(event, CatalogChanged):
            house.catalog_changed()

    control = Control(
        reader,
        allowed,
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
    workers = Workers(c, house.stages, grace_s=house.settings.runs.drain_s)
    app = application(house.settings.redis.url, c.topology, workers, house.stages)
    await _look_at_pools(house, workers)
    await app.start()
    house.stops.add("stages", app.stop, house.settings.runs.drain_s + 5.0)
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
    """Call `step` every `seconds` until the process stops."""

    async def loop() -> None:
        while True:
            await house.context.clock.sleep(seconds)
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


def _say_ready(house: House, rooms: list[str], ready_fd: int) -> None:
    gc.collect()
    gc.freeze()  # what stands now stands till the end: the collector need not look at it again
    log.info("ready", rooms=rooms, health_port=house.health.port)
    for room in rooms:
        write_message(ready_fd, {"room": room, "pid": os.getpid(), "health_port": house.health.port})
