"""The admin API inside a process's loop, on a port of its own; and how the room `console` is opened."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp

from base.clock import Clock
from console.admin.app import build
from console.admin.parts import Parts, Runs
from console.desks import make_key_desk, make_model_desk
from console.engine_logs import FileLogs
from console.rooms import House
from console.routing import RoutingView, make_peers
from console.scan_desk import make_scan_desk
from ingress.serve import GuestServer, bind
from runtime.dlq import DeadLetters
from runtime.inspect import Inspector

_GRACE_S = 5  # for answers under way


class AdminServer:
    """One listening port. Signals are the process's business."""

    def __init__(self, app: ASGIApp, host: str, port: int, clock: Clock) -> None:
        self._host, self._port, self._clock = host, port, clock
        self._server = GuestServer(
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
        sock = bind(self._host, self._port, "admin")
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


async def open_room(house: House, runs: Runs) -> None:
    """The room `console` of a process: its server starts last and stops with the doors."""
    c, where = house.context, house.settings.admin
    parts = _parts(house, runs)
    server = AdminServer(build(parts), where.host, where.port, c.clock)

    async def start() -> None:
        await server.start()
        house.addresses["console"] = f"http://{where.host}:{server.port}"
        house.stops.add("admin API", stop, _GRACE_S + 2.0)

    async def stop() -> None:
        parts.engine_logs.close()
        await server.stop()

    house.after.append(start)


def _parts(house: House, runs: Runs) -> Parts:
    c, settings = house.context, house.settings
    return Parts(
        store=house.store,
        keys=house.shared.keys,
        key_desk=make_key_desk(c, house.store, house.shared.keys),
        model_desk=make_model_desk(c, house.store),
        runs=runs,
        dead_letters=DeadLetters(c.redis, c.seals("console"), c.partitions),
        inspector=Inspector(c.redis, c.topology, c.partitions),
        routing=_routing(house),
        processes=house.shared.processes,
        publisher=c.publisher("console"),
        groups=tuple(group for stream in c.topology.streams.values() for group in stream.groups),
        engine_logs=FileLogs(settings.data.directory, c.clock),
        scan_desk=make_scan_desk(settings.guardrails, c.clock, c.chance),
        ring=c.ring,
        clock=c.clock,
        rotation_overlap_s=settings.admin.rotation_overlap_s,
    )


def _routing(house: House) -> RoutingView:
    c, settings = house.context, house.settings
    return RoutingView(
        catalog=house.shared.catalog,
        peers=make_peers(c, settings.router),
        inflight=house.shared.inflight,
        settings=settings.router,
        prices=settings.audit.price_list(),
        clock=c.clock,
        chance=c.chance,
    )
