"""Verdicts of several families about some runs, given in one moment by one process, in one call of the server.

The families of a process that read together answer together, but for a few turns of the loop. Each answer waits until
all of them have answered about each run of that moment, or no answer has come for some turns; a turn is microseconds, a
script tens of them. Answers about one run are one step of the server; all runs of a partition leave in one call, each a
step of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runtime.claims import Handed, Moved, Taker
from runtime.names import lane_key, prefix_of
from runtime.scripts import Answer, Said, Scripts
from schemas.errors import HeadraceError
from schemas.verdicts import REFUSE

_QUIET = 3  # turns of the loop without a further answer
_MOST = 16  # runs of one call: about two milliseconds of the server


class Verdicts(Protocol):
    """Where a family's answers go: Jointly, or Alone."""

    def tell(self, answers: Sequence[Answer]) -> Awaitable[Sequence[Moved]]:
        """What came of each, in any order, once all were carried out. Unavailable, ServerError: of the first that was
        not."""
        ...


class Router(Protocol):
    """A router in this process that takes what is cleared: runtime.handing.Handing."""

    def offer(self, answers: Sequence[Answer], lane: str) -> Taker | None: ...

    def settle(self, run: str, taker: Taker, lane: str, handed: Handed | None) -> None: ...

    def lost(self, run: str, taker: Taker, lane: str) -> None: ...


class Alone:
    """Implements Verdicts for a family whose process hosts no other."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def tell(self, answers: Sequence[Answer]) -> Sequence[Moved]:
        """See Verdicts."""
        told: list[Moved] = []
        for start in range(0, len(answers), _MOST):
            for moved in await self._scripts.verdicts([Said((one,)) for one in answers[start : start + _MOST]]):
                if isinstance(moved, HeadraceError):
                    raise moved
                told.append(moved)
        return told


class _Batch:
    """Answers of one family that wait for what comes of them."""

    __slots__ = ("_count", "_told", "done")

    def __init__(self, count: int, done: asyncio.Future[Sequence[Moved]]) -> None:
        self.done, self._count = done, count
        self._told: list[Moved] = []

    def hear(self, came: Moved | Exception) -> None:
        """Of one of them; `moved` is true for all that went with the one that moved the run."""
        if self.done.done():
            return
        if isinstance(came, Exception):
            self.done.set_exception(came)
            return
        self._told.append(came)
        if len(self._told) == self._count:
            self.done.set_result(self._told)


_Waiting = dict[str, list[tuple[Answer, _Batch]]]  # by run


@dataclass(slots=True)
class Jointly:
    """Implements Verdicts over Scripts; one per process. families: how many of its families answer about each run, 0 =
    not known. routers: by the prefix of their partition."""

    scripts: Scripts
    families: int = 0
    routers: dict[str, Router] = field(default_factory=dict)
    _waiting: dict[str, _Waiting] = field(default_factory=dict)  # by prefix
    _open: int = 0  # runs about which not all families have answered
    _quiet: int = 0
    _due: asyncio.Handle | None = None
    _calls: set[asyncio.Task[None]] = field(default_factory=set)

    def tell(self, answers: Sequence[Answer]) -> asyncio.Future[Sequence[Moved]]:
        """See Verdicts."""
        loop = asyncio.get_running_loop()
        batch = _Batch(len(answers), loop.create_future())
        for answer in answers:
            mine = self._waiting.setdefault(prefix_of(answer.run), {}).setdefault(answer.run, [])
            mine.append((answer, batch))
            self._open += (len(mine) == 1) - (len(mine) == self.families)
        if not self._open:
            self._go(loop)
        elif self._due is None:
            self._due = loop.call_soon(self._look, loop)
        self._quiet = 0
        return batch.done

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quiet += 1
        if self._quiet <= _QUIET:
            self._due = loop.call_soon(self._look, loop)
        else:
            self._go(loop)

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due, self._open = None, 0
        waiting, self._waiting = self._waiting, {}
        for p, runs in waiting.items():
            mine = list(runs.values())
            for start in range(0, len(mine), _MOST):
                call = loop.create_task(self._call(p, mine[start : start + _MOST]), name="verdicts")
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

    async def _call(self, p: str, runs: Sequence[Sequence[tuple[Answer, _Batch]]]) -> None:
        """The script, and the runs that come back with it."""
        router = self.routers.get(p)
        said: list[Said] = []
        lanes: list[str] = []
        for waiting in runs:
            answers = [answer for answer, _ in waiting]
            lane = _lane(answers) if router else ""
            lanes.append(lane)
            said.append(Said(answers, router.offer(answers, lane) if router and lane else None))
        try:
            came: Sequence[Moved | Exception] = await self.scripts.verdicts(said)
        except Exception as error:  # whatever it is, each has to hear of it
            came = [error] * len(said)
        for one, lane, waiting, moved in zip(said, lanes, runs, came, strict=True):
            heard = _settled(router, one.run, one.taker, lane, moved) if router and one.taker else moved
            for _, batch in waiting:
                batch.hear(heard)


def _settled(router: Router, run: str, taker: Taker, lane: str, came: Moved | Exception) -> Moved | Exception:
    """Tell the router that what it was promised has come, or has not, or that nobody knows; what there is to hear."""
    try:
        if isinstance(came, Exception):
            router.lost(run, taker, lane)
        else:
            router.settle(run, taker, lane, came.handed)
    except Exception as error:  # the other runs of this call must hear of theirs
        return error
    return came


def _lane(answers: Sequence[Answer]) -> str:
    """Where the run goes if these answers clear it; "" when they cannot, or do not say."""
    pool = lane = ""
    for one in answers:
        if one.outcome == REFUSE:
            return ""
        if one.pool:
            pool, lane = one.pool, one.lane
    try:
        return lane_key(prefix_of(answers[0].run), pool, lane) if pool else ""
    except ValueError:  # no name for a pool: nobody here serves it
        return ""
