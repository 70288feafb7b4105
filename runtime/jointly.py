"""Verdicts of several families about one run, given in one moment by one process, as one step of the server.

The families of a process that read together answer together, but for a few turns of the loop. Where all that a run
asks have answered here, the step begins at once. Where others answer elsewhere, or not at all, each answer waits until
none has come for some turns; a turn is microseconds when nothing else is to be done, a script tens of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runtime.claims import Handed, Moved, Taker
from runtime.names import lane_key, prefix_of
from runtime.scripts import Answer, Scripts
from schemas.verdicts import REFUSE

_QUIET = 3  # turns of the loop without a further answer
#: An answer, and whoever waits for its word.
Said = tuple[Answer, asyncio.Future[tuple[bool, str]]]


class Verdicts(Protocol):
    """Where a family's answer goes: Scripts, or Jointly."""

    def verdict(self, answer: Answer) -> Awaitable[tuple[bool, str]]: ...


class Router(Protocol):
    """A router in this process that takes what is cleared: runtime.handing.Handing."""

    def offer(self, run: str, lane: str) -> Taker | None: ...

    def settle(self, taker: Taker, lane: str, handed: Handed | None) -> None: ...

    def lost(self, run: str, taker: Taker, lane: str) -> None: ...


@dataclass(slots=True)
class Jointly:
    """Implements Verdicts over Scripts; one per process. routers: by the prefix of their partition."""

    scripts: Scripts
    routers: dict[str, Router] = field(default_factory=dict)
    _waiting: dict[str, list[Said]] = field(default_factory=dict)
    _quiet: int = 0
    _looking: bool = False
    _steps: set[asyncio.Task[None]] = field(default_factory=set)

    def verdict(self, answer: Answer) -> asyncio.Future[tuple[bool, str]]:
        """See Scripts.verdict; `moved` is true for all answers that went with the one that moved the run."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[tuple[bool, str]] = loop.create_future()
        said = self._waiting.setdefault(answer.run, [])
        said.append((answer, mine))
        self._quiet = 0
        if len(said) == answer.families:
            del self._waiting[answer.run]
            self._begin(loop, said)
        elif not self._looking:
            self._looking = True
            loop.call_soon(self._look, loop)
        return mine

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quiet += 1
        if self._quiet <= _QUIET and self._waiting:
            loop.call_soon(self._look, loop)
            return
        self._looking = False
        runs, self._waiting = self._waiting, {}
        for said in runs.values():
            self._begin(loop, said)

    def _begin(self, loop: asyncio.AbstractEventLoop, said: list[Said]) -> None:
        step = loop.create_task(self._tell(said), name="verdicts")
        self._steps.add(step)
        step.add_done_callback(self._steps.discard)

    async def _tell(self, said: list[Said]) -> None:
        try:
            moved, state, _ = await self._step([answer for answer, _ in said])
        except Exception as error:
            for _, future in said:
                if not future.done():
                    future.set_exception(error)
        else:
            for _, future in said:
                if not future.done():
                    future.set_result((moved, state))

    async def _step(self, answers: Sequence[Answer]) -> Moved:
        """The script, and the run that comes back with it."""
        run, lane = answers[0].run, _lane(answers) if self.routers else ""
        router = self.routers.get(prefix_of(run)) if lane else None
        taker = router.offer(run, lane) if router else None
        if router is None or taker is None:
            return await self.scripts.verdicts(answers)
        try:
            seen = await self.scripts.verdicts(answers, taker)
        except BaseException:
            router.lost(run, taker, lane)
            raise
        router.settle(taker, lane, seen.handed)
        return seen


def _lane(answers: Sequence[Answer]) -> str:
    """Where the run goes if these answers clear it; "" when they cannot, or do not say."""
    if any(answer.outcome == REFUSE for answer in answers):
        return ""
    return next((lane_key(prefix_of(one.run), one.pool, one.lane) for one in answers if one.pool), "")
