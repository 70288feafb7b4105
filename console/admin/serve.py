"""The admin API inside a process's loop, on a port of its own; and how the room `console` is opened."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from base.clock import Clock
from base.crypto import Sealer
from console.admin.app import build
from console.admin.parts import Parts, Runs
from console.desks import KeyDesk, ModelDesk
from console.engine_logs import FileLogs
from console.rooms import House
from console.routing import RoutingView
from console.scan_desk import make_scan_desk
from runtime.dlq import DeadLetters
from runtime.inspect import Inspector
from schemas.errors import HeadraceError
from state.breaker import RedisBreakers
from state.latency import RedisLatencies

_GRACE_S = 5  # for answers under way


class CannotListen(HeadraceError):
    """The address is taken or not ours; the text says what to change."""


class AdminServer:
    """One listening port. Signals are the process's business."""

    def __init__(self, app: ASGIApp, host: str, port: int, clock: Clock) -> None:
        self._host, self._port, self._clock = host, port, clock
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0  # the port in use after start

    async def start(self) -> None:
        """Listen. CannotListen."""
        sock = _bind(self._host, self._port)
        self.port = int(sock.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]), name="admin")
        while not self._server.started and not self._task.done():
            await self._clock.sleep(0.005)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Close the port, let answers under way finish. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            self._server.should_exit = True
            await task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the process's signal handlers alone."""
        yield


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        remedy = "set admin.port to a free one" if error.errno == errno.EADDRINUSE else "look at admin.host"
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from None
    return sock


def _routing(house: House) -> RoutingView:
    c, settings = house.context, house.settings
    return RoutingView(
        catalog=house.shared.catalog,
        breakers=RedisBreakers(c.redis, c.clock, settings.router.breaker.limits()),
        latencies=RedisLatencies(c.redis, c.clock),
        inflight=house.shared.inflight,
        settings=settings.router,
        prices=settings.audit.price_list(),
        clock=c.clock,
        chance=c.chance,
    )


async def open_room(house: House, runs: Runs) -> None:
    """The room `console` of a process: its server starts last and stops with the doors."""
    c, settings = house.context, house.settings
    publisher = c.publisher("console")
    keys = KeyDesk(
        keys=house.store.keys,
        projection=house.shared.keys,
        publisher=publisher,
        ring=c.ring,
        clock=c.clock,
        chance=c.chance,
    )
    sealer = Sealer(c.ring, c.chance)
    engine_logs = FileLogs(settings.data.directory, c.clock)
    parts = Parts(
        store=house.store,
        keys=house.shared.keys,
        key_desk=keys,
        model_desk=ModelDesk(deployments=house.store.deployments, publisher=publisher, ring=c.ring, sealer=sealer),
        runs=runs,
        dead_letters=DeadLetters(c.redis, c.seals("console"), c.partitions),
        inspector=Inspector(c.redis, c.topology, c.partitions),
        routing=_routing(house),
        processes=house.shared.processes,
        publisher=publisher,
        groups=tuple(group for stream in c.topology.streams.values() for group in stream.groups),
        engine_logs=engine_logs,
        scan_desk=make_scan_desk(settings.guardrails, c.clock, c.chance),
        ring=c.ring,
        clock=c.clock,
        rotation_overlap_s=settings.admin.rotation_overlap_s,
    )
    server = AdminServer(build(parts), settings.admin.host, settings.admin.port, c.clock)

    async def start() -> None:
        await server.start()
        house.addresses["console"] = f"http://{settings.admin.host}:{server.port}"
        house.stops.add("admin API", stop, _GRACE_S + 2.0)

    async def stop() -> None:
        engine_logs.close()
        await server.stop()

    house.after.append(start)
