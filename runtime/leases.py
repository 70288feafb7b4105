"""Runs of one consumer: each is claimed, given to the room's handler, and left when that is done.

A run that its own process clears can be begun before its claim is here (see runtime/promise.py): then its handler works
on a lease that writes nothing yet. The claim that comes with the entry confirms it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from base import metrics
from base.clock import Clock
from base.crypto import CryptoError
from base.ids import Random, short_id
from runtime import faults
from runtime.claims import Claim
from runtime.consume import Engine, Handler
from runtime.flushes import Flushes
from runtime.lease import BACKOFF, Lease
from runtime.promise import foreseen, holds
from runtime.runs import Runs
from runtime.scripts import Answer, Scripts
from runtime.seals import Seals
from schemas.errors import DecodeError, OwnerLost, SignatureError, Unavailable
from schemas.outcomes import Dead, Delivery, Outcome, Settled
from schemas.ports import RunLease

RunHandler = Callable[[RunLease], Awaitable[None]]

_EARLY = 64  # messages kept about runs that are not here yet


class _Begun(msgspec.Struct):
    """Work on a run whose claim by `owner` is under way. promised: its lease, and what the claim will bring."""

    owner: str
    task: asyncio.Task[None] | None = None
    promised: tuple[Lease, Claim] | None = None


class Leases:
    """Turns deliveries of cleared runs into owned runs for a room's handler, one task each."""

    def __init__(
        self,
        consumer: str,
        handler: RunHandler,
        scripts: Scripts,
        runs: Runs,
        seals: Seals,
        clock: Clock,
        chance: Random,
    ) -> None:
        self._consumer, self._handler, self._scripts, self._runs = consumer, handler, scripts, runs
        self._seals, self._clock, self._chance = seals, clock, chance
        self._flushes = Flushes(scripts)
        self._live: dict[str, Lease] = {}
        self._early: deque[tuple[str, str]] = deque(maxlen=_EARLY)
        self._given: dict[tuple[str, str], tuple[str, Claim]] = {}
        self._begun: dict[str, _Begun] = {}  # by run
        self.engine: Engine | None = None

    def as_handler(self) -> Handler:
        """What the engine calls. Deliveries of one batch run beside each other."""

        async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
            outcomes: list[Outcome] = []
            for delivery in deliveries:  # a comprehension that awaits is a coroutine of its own
                outcomes.append(await self._one(delivery))
            return outcomes

        return handle

    def hear(self, message: bytes) -> None:
        """`cancel <run>` on this consumer's push channel."""
        word, _, run = message.decode().partition(" ")
        lease = self._live.get(run)
        if lease is not None:
            lease.hear(word)
        else:
            self._early.append((run, word))  # its claim may be on its way here

    def give(self, stream: str, entry: str, owner: str, claim: Claim) -> None:
        """An entry that is about to be delivered has been claimed with its delivery."""
        self._given[stream, entry] = owner, claim

    def forget(self, stream: str, entry: str) -> None:
        """It was not delivered."""
        self._given.pop((stream, entry), None)

    def promise(self, run: str, owner: str, answers: Sequence[Answer]) -> None:
        """Begin on a run that these answers clear, and whose claim leaves with them in this turn of the loop. Its entry
        with a claim must follow, or `recall`."""
        if run in self._live or run in self._begun or self.engine is None:
            return
        begun = self._begun[run] = _Begun(owner)
        begun.task = self.engine.beside(self._begin(run, begun, answers))

    def recall(self, run: str) -> bool:
        """No claim has come, or another than was promised; whether anything had been begun."""
        begun = self._begun.pop(run, None)
        if begun is None or begun.promised is None:
            return False
        lease = begun.promised[0]
        if self._live.get(run) is lease:
            del self._live[run]
        lease.hear("lost")
        return True

    async def _begin(self, run: str, begun: _Begun, answers: Sequence[Answer]) -> None:
        """The work on a promised lease. Its engine's call leaves in the turn in which the answers do, just before them:
        what comes of these is needed at its first token. What fails before the claim is here fails again with the
        claim, and is heard of then."""
        claim = foreseen(answers, self._clock.now_ms())
        if claim is None or self._begun.get(run) is not begun:
            return
        lease: Lease | None = None
        try:
            lease = self._live[run] = self._lease(run, begun.owner, claim, claimed=False)
            begun.promised = lease, claim
            await self._handler(lease)
        except Exception:
            if lease is not None and lease.claimed:
                raise

    def _kept(self, run: str, owner: str, claim: Claim) -> tuple[Lease, asyncio.Task[None]] | None:
        """The lease that was promised and the work on it, now that its claim is here; None when there is none that
        holds."""
        begun = self._begun.get(run)
        if begun is None:
            return None
        if begun.task and not begun.task.done() and begun.promised and begun.owner == owner:
            lease, promised = begun.promised
            if holds(promised, claim):
                del self._begun[run]
                lease.confirm(claim)
                return lease, begun.task
        self.recall(run)
        return None

    def _taken(self, delivery: Delivery) -> tuple[str, Claim] | None:
        """The owner and the claim that came with it."""
        return self._given.pop((delivery.stream, delivery.entry), None)

    async def _one(self, delivery: Delivery) -> Outcome:
        """Claim, hand over, forget. The nonce is fixed per start, so a repeated claim is the same claim."""
        run = delivery.run
        owner, claim = self._taken(delivery) or await self._claim(delivery)
        faults.hit("claim", "P4")
        kept = self._kept(run, owner, claim)
        if claim.state == "gone":
            return Settled()
        if claim.state == "lost":
            raise OwnerLost(f"claim of {run}")
        try:
            lease = kept[0] if kept else self._lease(run, owner, claim)
        except CryptoError as error:
            return Dead(f"the body does not open: {error}")
        except (DecodeError, SignatureError) as error:
            return Dead(f"the acceptance does not hold: {error}")
        if self.engine is not None:
            self.engine.hold(delivery, owner, lease.hear)
        self._live[run] = lease
        for early, word in self._early:
            if early == run:
                lease.hear(word)
        _measure_wait(claim, lease.accepted.model)
        try:
            await (kept[1] if kept else self._handler(lease))
        finally:
            if self._live.get(run) is lease:
                del self._live[run]
        if not lease.ended:  # another's by now: its entry must not be acknowledged here
            raise OwnerLost(f"{run} was left before its end")
        return Settled()

    def _lease(self, run: str, owner: str, claim: Claim, *, claimed: bool = True) -> Lease:
        hands = self._scripts, self._flushes, self._runs, self._seals
        return Lease(run, owner, claim, *hands, self._clock, self._chance, claimed=claimed)

    async def _claim(self, delivery: Delivery) -> tuple[str, Claim]:
        owner = f"{self._consumer}:{short_id(self._chance)}"
        where = delivery.run, delivery.stream, delivery.entry
        while True:
            try:
                return owner, await self._scripts.claim(*where, self._consumer, owner)
            except Unavailable:
                await self._clock.sleep(self._chance.uniform(*BACKOFF))


def _measure_wait(claim: Claim, model: str) -> None:
    """From cleared to claimed, by the server's clock."""
    fields = claim.fields
    now = int(fields.get("deadline", b"0")) - claim.left_ms
    metrics.observe("headrace_queue_wait_seconds", max(0, now - int(fields.get("t:cleared", now))) / 1000, model=model)
