"""Frames of all runs that a process owns in a partition leave together: one script, one push to each watching ingress.

A call of the server, and the wake-ups it causes there and at the doors, cost far more than a frame in it. So frames
leave at once only when none left for TOGETHER_S, else with all others at that end: their delay is bounded, and the
number of calls no longer grows with the load. A run's first words never wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from base import logs
from runtime.scripts import Scripts, Write
from runtime.wire import ServerError

#: Seconds that a frame waits for others at most.
TOGETHER_S = 0.004
_MOST = 128  # frames of one call: about a millisecond of the server

#: Hears the script's word for one write, or why there is none.
Told = Callable[[str | Exception], None]
log = logs.room("runtime")


class Flushes:
    """The way of data frames to the server; one per process and partition. A run has one write under way at most."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._waiting: list[tuple[Write, Told]] = []
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.Handle | None = None
        self._left = 0.0  # when the last ones did
        self._calls: set[asyncio.Task[None]] = set()

    def add(self, write: Write, told: Told, *, at_once: bool = False) -> None:
        """Store it with others; `told` hears what became of it, in the loop's own turn."""
        self._waiting.append((write, told))
        if at_once:
            self._disarm()
            self._go()
        elif self._due is None:
            left = self._left + TOGETHER_S - self._loop.time()
            self._due = self._loop.call_soon(self._go) if left <= 0 else self._loop.call_later(left, self._go)

    async def store(self, write: Write, *, at_once: bool = False) -> str:
        """The same for who waits for the word. Unavailable, ServerError."""
        future: asyncio.Future[str] = self._loop.create_future()

        def told(word: str | Exception) -> None:
            if future.done():
                return
            if isinstance(word, str):
                future.set_result(word)
            else:
                future.set_exception(word)

        self.add(write, told, at_once=at_once)
        return await future

    def _disarm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _go(self) -> None:
        self._due, self._left = None, self._loop.time()
        writes, self._waiting = self._waiting, []
        for start in range(0, len(writes), _MOST):
            call = self._loop.create_task(self._call(writes[start : start + _MOST]), name="flush")
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, writes: Sequence[tuple[Write, Told]]) -> None:
        try:
            words: Sequence[str | Exception] = await self._scripts.flush([write for write, _ in writes])
        except Exception as error:  # whatever it is, each has to hear of it
            words = [error] * len(writes)
        for (write, told), word in zip(writes, words, strict=True):
            refused = isinstance(word, str) and word.startswith("error")
            try:
                told(ServerError(str(word)) if refused else word)
            except Exception:
                log.exception("a run could not be told of its frame", run=write.run)
