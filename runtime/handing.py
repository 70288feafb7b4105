"""Runs that a process clears and takes in one step, so that no read and no claim lies between verdict and router.

A process that judges runs and routes them says with its verdicts that it has a place for one more. If the run passes
the gate at once, the same script delivers its entry to this router and claims it. What this cannot serve (no place, a
gate with a queue, a lane that others have filled) goes the usual way, by the router's own read.

- Where other routers live, all goes the usual way: whoever is idle reads first.
- A place is kept for as long as the script is under way. Together with what the present read has asked for, a router
  never gets more than it can start.
- A run whose body is at hand is begun while the script is under way (`runtime/promise.py`), unless the last one begun
  for its lane did not come: so a closed gate costs one beginning, not one a run. Under load nothing is: beginning costs
  some work, and what is waited for then is no script.
- A script whose reply was lost is asked again under the same owner, and answers the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from base.clock import Clock
from base.ids import Random, short_id
from runtime.claims import Handed, Taker
from runtime.consume import Engine
from runtime.groups import Row
from runtime.leases import Leases
from runtime.names import place_of
from runtime.pace import Pace
from runtime.scripts import Answer

_REMEMBERED = 1_000  # lost replies, the last ones; a run is asked for again within a second


class Handing:
    """The router of one partition in this process. Implements runtime.jointly.Router."""

    def __init__(self, engine: Engine, leases: Leases, clock: Clock, chance: Random) -> None:
        self._engine, self._leases, self._clock, self._chance = engine, leases, clock, chance
        self._pace = Pace()
        self._shut: set[str] = set()  # lanes that did not bring what was begun last: nothing is begun for them
        self._asked: dict[str, str] = {}  # run -> owner of a script whose reply was lost
        engine.shares()

    def offer(self, answers: Sequence[Answer], lane: str) -> Taker | None:
        """Who takes the run if these answers clear it into that lane now; None when there is no place. `settle` must
        follow. Where it is as good as certain what will come of it, the run is begun."""
        if not self._engine.expect(lane):
            return None
        run, consumer = answers[0].run, self._engine.consumer
        owner = self._asked.pop(run, "")
        self._pace.note(1, self._clock.monotonic())
        if not owner:
            owner = f"{consumer}:{short_id(self._chance)}"
            if lane not in self._shut and not self._pace.rest:
                self._leases.promise(run, owner, answers)
        return Taker(consumer=consumer, owner=owner, pool=place_of(lane)[0])

    def settle(self, run: str, taker: Taker, lane: str, handed: Handed | None) -> None:
        """What came of an offer: an entry, or nothing."""
        if handed is None or handed.claim is None:
            if self._leases.recall(run):
                self._shut.add(lane)
        else:
            self._shut.discard(lane)
            self._leases.give(lane, handed.entry, taker.owner, handed.claim)
        if handed is None:
            self._engine.unexpect(lane)
        elif not self._engine.receive(Row(lane, handed.entry, {b"e": handed.envelope})):
            self._leases.forget(lane, handed.entry)
            self._leases.recall(run)

    def lost(self, run: str, taker: Taker, lane: str) -> None:
        """Nobody knows what came of it."""
        self._leases.recall(run)
        self._engine.unexpect(lane)
        if len(self._asked) == _REMEMBERED:
            del self._asked[next(iter(self._asked))]
        self._asked[run] = taker.owner
