"""Is the client still there? One listener per watched request interrupts its handler when the client hangs up.

Covers every phase alike (queued, checking, before the first byte, mid-stream, unary), because it interrupts whatever
the handler is waiting for. `sign_off` is the farewell to a run, for whoever watched it.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from base import logs
from schemas.errors import HeadraceError
from schemas.ports import Watch

log = logs.room("ingress")


class Presence:
    """Made inside the handler's task after the body was read; `stop` it before the handler does anything else."""

    __slots__ = ("_handler", "_listener", "gone")

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._handler = asyncio.current_task()
        self._listener = asyncio.create_task(_hang_up(receive))
        self._listener.add_done_callback(self._left)

    def stop(self) -> None:
        """Listen no more. After it the handler is not interrupted."""
        if not self._listener.done():
            self._listener.remove_done_callback(self._left)
            self._listener.cancel()

    def forgive(self) -> bool:
        """Whether a cancellation came from here; if so it is taken back, so that the handler can go on tidying up."""
        if self.gone and self._handler is not None:
            self._handler.uncancel()
        return self.gone

    def _left(self, listener: asyncio.Task[None]) -> None:
        if not listener.cancelled() and self._handler is not None:
            listener.exception()  # a broken receive is a client that left
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
