"""The door's HTTP server: uvicorn inside a loop that somebody else owns. Signals are the owner's business.

    server = IngressServer(Ingress(parts), parts.settings, parts.health, parts.clock)
    await server.start()        # listens; server.port
    await server.stop()         # /readyz 503 -> port closed -> open answers finish -> what is left is cut

The loop should be uvloop's; parsing is httptools'. Several processes may share the port by passing one bound socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from base.clock import Clock
from base.health import Health
from ingress.protocol import protocol_for
from ingress.settings import ServerSettings
from schemas.errors import HeadraceError


class CannotListen(HeadraceError):
    """The address is taken or not ours; the text says what to change."""


class IngressServer:
    """One listening port of one process. sock: an already bound socket, for processes that share a port."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, health: Health, clock: Clock, sock: socket.socket | None = None
    ) -> None:
        self._settings, self._health, self._clock = settings, health, clock
        self._sock = sock
        self._server = GuestServer(_config(app, settings))
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use after `start`."""
        assert self._sock is not None, "start the server first"
        return int(self._sock.getsockname()[1])

    async def start(self) -> None:
        """Listen and serve in a task of this loop. CannotListen."""
        if self._sock is None:
            self._sock = bind(self._settings.host, self._settings.port)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise CannotListen("the HTTP server ended before it had begun; its log says why")
            await self._clock.sleep(0.005)

    async def stop(self) -> None:
        """Refuse new work, wait `drain_delay`, close the port, let open answers finish for `drain_limit`, cut the rest.
        Idempotent."""
        self._health.draining = True
        if self._task is None:
            return
        await self._clock.sleep(self._settings.drain_delay)
        self._server.should_exit = True
        task, self._task = self._task, None
        await task
        left = tuple(self._server.server_state.tasks)  # cancelled by now; let them close their watches
        await asyncio.gather(*left, return_exceptions=True)


def bind(host: str, port: int, section: str = "server") -> socket.socket:
    """A bound TCP socket. CannotListen with the remedy when the address is taken. section: where host and port were
    set."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        remedy = f"set {section}.port to a free one" if error.errno == errno.EADDRINUSE else f"look at {section}.host"
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from None
    sock.setblocking(False)
    return sock


class GuestServer(uvicorn.Server):
    """uvicorn in a loop and a process that are somebody else's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the process's signal handlers alone."""
        yield


def _config(app: ASGIApp, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=protocol_for(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=settings.backlog,
        timeout_keep_alive=max(1, round(settings.idle_timeout)),
        timeout_graceful_shutdown=max(1, round(settings.drain_limit)),
    )
