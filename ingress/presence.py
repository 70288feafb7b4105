"""Is the client still there? One listener per watched request interrupts its handler when the client hangs up.

Covers every phase alike (queued, checking, before the first byte, mid-stream, unary), because it interrupts whatever
the handler is waiting for. `sign_off` is the farewell to a run, for whoever watched it.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from base import logs
from ingress.cycle import Cycle
from schemas.errors import HeadraceError
from schemas.ports import Watch

log = logs.room("ingress")


class Presence:
    """Made inside the handler's task after the body was read; `stop` it before the handler does anything else. cycle:
    of the request, where there is one; else a task listens."""

    __slots__ = ("_cycle", "_handler", "_listener", "gone")

    def __init__(self, receive: Receive, cycle: Cycle | None = None) -> None:
        self.gone = False
        self._handler = cycle.task if cycle is not None else asyncio.current_task()
        self._cycle, self._listener = cycle, None if cycle else asyncio.create_task(_hang_up(receive))
        if self._listener is not None:
            self._listener.add_done_callback(self._heard)
        elif cycle is not None:
            cycle.watch(self._left)

    def stop(self) -> None:
        """Listen no more. After it the handler is not interrupted."""
        if self._cycle is not None:
            self._cycle.left = None
        if self._listener is not None and not self._listener.done():
            self._listener.remove_done_callback(self._heard)
            self._listener.cancel()

    def forgive(self) -> bool:
        """Whether a cancellation came from here; if so it is taken back, so that the handler can go on tidying up."""
        if self.gone and self._handler is not None:
            self._handler.uncancel()
        return self.gone

    def _heard(self, listener: asyncio.Task[None]) -> None:
        if not listener.cancelled():
            listener.exception()  # a broken receive is a client that left
            self._left()

    def _left(self) -> None:
        if self._handler is not None:
            self.gone = True
            self._handler.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def sign_off(watch: Watch) -> None:
    """After the last frame this is nothing; before it the run learns that nobody watches."""
    try:
        await watch.leave()
    except HeadraceError as error:
        log.info("a watcher could not sign off; the sweeper will", run=watch.run, reason=str(error))
