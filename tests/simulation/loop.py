"""An event loop without a clock, threads or sockets: time jumps to whatever is due next.

Jobs run in the order in which they became due, ties in the order in which they were asked for, so a run of the loop is
a function of what was put into it. Each job belongs to the home whose name stands in its context: a home that is
halted parks its jobs: a stopped process until it goes on, a killed one for ever, so that nothing of it runs, no
`finally` either.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Home:
    """A process as the loop sees it."""

    name: str
    halted: bool = False
    dead: bool = False
    parked: list[Job] = field(default_factory=list)


HOME: ContextVar[Home | None] = ContextVar("home", default=None)


class Job:
    """A callback that is due; what asyncio calls a handle."""

    __slots__ = ("args", "callback", "context", "due", "gone", "home")

    def __init__(self, due: float, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.due, self.callback, self.args, self.context = due, callback, args, context
        self.home = context.get(HOME)
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.due


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not hang on where it lies in memory."""

    _count = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        NumberedTask._count += 1
        self._number = NumberedTask._count
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


#: What a look at the clock takes: whoever waits for less than a float can tell gets there by asking again.
_LOOK_S = 1e-9


class Stuck(Exception):
    """Nothing is due, and what was waited for has not come."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """What asyncio's own parts need of a loop, and nothing else. errors: what callbacks and forgotten tasks raised."""

    def __init__(self) -> None:
        self._now = 0.0
        self._count = 0
        self._ready: deque[Job] = deque()
        self._timers: list[tuple[float, int, Job]] = []
        self.steps = 0
        self.errors: list[str] = []
        NumberedTask._count = 0

    # --- what asyncio asks ----------------------------------------------------------------------------------------

    def time(self) -> float:
        self._now += _LOOK_S
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return NumberedTask(coro, loop=self, name=name, context=context)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Job:  # type: ignore[override]
        job = Job(self._now, callback, args, copy_context() if context is None else context)
        self._ready.append(job)
        return job

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Job:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Job:  # type: ignore[override]
        job = Job(when, callback, args, copy_context() if context is None else context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, job))
        return job

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- running --------------------------------------------------------------------------------------------------

    def run_until(self, when: float) -> None:
        """Run all that is due until then; then it is then."""
        with self._here():
            while self._ready or (self._timers and self._timers[0][0] <= when):
                self._turn()
        self._now = max(self._now, when)

    def run(self, work: Coroutine[Any, Any, Any], context: Context | None = None) -> Any:
        """The result of `work`, however long it takes. Stuck when it can never come."""
        with self._here():
            task = self.create_task(work, context=context)
            while not task.done():
                if not self._ready and not self._timers:
                    raise Stuck(repr(task))
                self._turn()
        return task.result()

    def wake(self, home: Home) -> None:
        """A halted home goes on where it was."""
        home.halted = False
        parked, home.parked = home.parked, []
        self._ready.extend(parked)

    def _here(self) -> _Running:
        return _Running(self)

    def _turn(self) -> None:
        timers, ready = self._timers, self._ready
        if not ready:
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            job = ready.popleft()
            if job.gone:
                continue
            if (home := job.home) is not None and home.halted:
                home.parked.append(job)
                continue
            self.steps += 1
            try:
                job.context.run(job.callback, *job.args)
            except Exception as error:
                self.call_exception_handler({"message": "a callback raised", "exception": error})


class _Running:
    """The loop is the running one inside."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        events._set_running_loop(self._loop)

    def __exit__(self, *_: object) -> None:
        events._set_running_loop(None)
