"""Owning a run: claim it, write its frames, end it. Implements schemas.ports.RunLease.

Every write compares the owner first. While Redis is away the lease holds its frame and tries again (each write may be
run twice), so a short outage costs a running stream time, not its life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from base import metrics
from base.alarm import Alarm
from base.clock import Clock
from base.crypto import CryptoError
from base.ids import Random, short_id
from runtime import faults
from runtime.claims import Claim
from runtime.consume import Engine, Handler
from runtime.flushes import Flushes
from runtime.runs import Runs, cut_short
from runtime.scripts import Scripts, SealedFrame, Write
from runtime.seals import Seals, encode_headers
from schemas import envelope as wire
from schemas.errors import Code, DecodeError, Failure, OwnerLost, SignatureError, Unavailable
from schemas.events import RequestAccepted, Terminal
from schemas.frames import DATA, OWNER
from schemas.outcomes import Dead, Delivery, Outcome, Settled
from schemas.ports import RunLease, Stored

RunHandler = Callable[[Delivery, RunLease], Awaitable[None]]

_BACKOFF = (0.05, 0.5)  # seconds, jittered, while Redis is away
_ACCEPTS = {"ingress": ("RequestAccepted",)}
_EARLY = 64  # messages kept about runs that are not here yet
_PAGE = 256  # frames of one read of what was sent
_BROKEN = Failure(
    code=Code.upstream_interrupted,
    message="The store lost a part of this answer; it ends here. Send the request again.",
)
T = TypeVar("T")


class Lease:
    """One claimed run in the hands of one router."""

    def __init__(
        self,
        run: str,
        owner: str,
        claim: Claim,
        scripts: Scripts,
        flushes: Flushes,
        runs: Runs,
        seals: Seals,
        clock: Clock,
        chance: Random,
    ) -> None:
        fields = claim.fields
        self.run, self.epoch, self.sequence = run, claim.epoch, claim.sequence
        signed = wire.Signed(fields.get("a", b""), fields.get("as", b""))
        _, accepted = wire.verify(seals.verifier, "requests", _ACCEPTS, signed)
        self.accepted: RequestAccepted = accepted
        self.accepted_ms = int(fields.get("t:accepted", b"0"))
        self._frames = seals.of_run(run)
        self.body = self._frames.open_body(claim.body)
        self.verdicts: Mapping[str, bytes] = {k[2:]: v for k, v in fields.items() if k.startswith("v:")}
        self.deadline_s = claim.left_ms / 1000
        self.cancelled = Alarm()
        self.by = "client"
        self.ended = False
        self._lost = False
        self._owner, self._scripts, self._flushes, self._runs, self._seals = owner, scripts, flushes, runs, seals
        self._named = {OWNER: owner.rpartition(":")[2]}
        self._only_named = encode_headers(self._named)
        self._clock, self._chance = clock, chance
        if "cancel" in fields:
            self.hear("cancel")

    def hear(self, state: str) -> None:
        """The beat, a flush or a push says: cancel or lost. Either way the work stops."""
        self._lost = self._lost or state == "lost"
        if state in ("cancel", "lost"):
            self.cancelled.set()

    async def flush(
        self, payload: bytes, events: int, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        """Store one data frame and push it to the watchers. OwnerLost when the run is another's."""
        self._refuse_if_lost()
        last = self.sequence + events
        write = Write(self.run, self._owner, self.epoch, last, self._frame(last, DATA, events, payload, headers, said))
        state = await self._insist(lambda: self._flushes.store(write, at_once=said <= events))
        if state in ("lost", "gap", "expired"):
            self.hear("lost")
            if state == "gap":
                await self._break_off()
            raise OwnerLost(f"flush of {self.run} at {self.epoch}-{last}: {state}")
        self.sequence = last
        self.hear(state)
        faults.hit("router", "P2")

    def offer(
        self, payload: bytes, events: int, told: Stored, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        """See schemas.ports.RunLease."""
        last = self.sequence + events

        def heard(word: str | Exception) -> None:
            stored = word in ("ok", "cancel")
            try:
                if stored:
                    self.sequence = last
                    if word == "cancel":
                        self.hear("cancel")
                    faults.hit("router", "P2")
            finally:
                told(stored)

        if self._lost:
            told(False)
            return
        frame = self._frame(last, DATA, events, payload, headers, said)
        self._flushes.add(Write(self.run, self._owner, self.epoch, last, frame), heard, at_once=said <= events)

    async def delivered(self) -> bytes | None:
        """The events that were sent so far, by any owner; None when the stream does not hold them all."""
        parts: list[bytes] = []
        epoch = sequence = 0
        while sequence < self.sequence:
            page = await self._insist(partial(self._runs.frames, self.run, epoch, sequence, _PAGE))
            if not page:
                return None
            for one in page:
                if one.sequence - one.events != sequence:
                    return None
                epoch, sequence = one.epoch, one.sequence
                parts.append(self._frames.open(one).payload)
        return b"".join(parts)

    async def end(
        self, kind: str, payload: bytes, events: int, fact: Terminal, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store the last frame and the terminal fact, acknowledge, free. OwnerLost when the run is another's."""
        self._refuse_if_lost()
        faults.hit("router", "P3")
        place, last = f"{self.epoch}-{self.sequence}", self.sequence + events
        frame = self._frame(last, kind, events, payload, headers)
        ending = self._seals.ending(fact, self.epoch)
        state = await self._insist(lambda: self._scripts.end(self.run, "owner", self._owner, place, frame, ending))
        if state == "lost":
            await self._break_off()
            raise OwnerLost(f"end of {self.run}")
        self.sequence, self.ended = last, True
        faults.hit("router", "P4")

    def _frame(
        self, last: int, kind: str, events: int, payload: bytes, headers: Mapping[str, str] | None, said: int = 0
    ) -> SealedFrame:
        """A frame of this owner's, who is named in it: see schemas.frames.OWNER."""
        public = encode_headers({**headers, **self._named}) if headers else self._only_named
        return self._frames.frame(self.epoch, last, kind, events, payload, public, said)

    async def _break_off(self) -> None:
        """The server may have lost frames that were sent: nothing can be added to them. A run that is still ours ends
        where it stands there."""
        seen = await self._runs.fields(self.run)
        if not seen or seen["state"] != b"running" or int(seen["epoch"]) != self.epoch:
            return
        sequence = int(seen["seq"])
        if sequence >= self.sequence:
            return
        frame = self._seals.error(self.run, self.epoch, sequence + 1, _BROKEN)
        ending = self._seals.ending(cut_short(self.run, seen, _BROKEN), self.epoch)
        place = f"{self.epoch}-{sequence}"
        self.ended = await self._scripts.end(self.run, "owner", self._owner, place, frame, ending) == "ok"

    def _refuse_if_lost(self) -> None:
        """Between the take-over of its entry and the claim of the new holder the hash still names this owner."""
        if self._lost:
            raise OwnerLost(f"{self.run} was taken over")

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except Unavailable:
                await self._clock.sleep(self._chance.uniform(*_BACKOFF))


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

    def _taken(self, delivery: Delivery) -> tuple[str, Claim] | None:
        """The owner and the claim that came with it."""
        return self._given.pop((delivery.stream, delivery.entry), None)

    async def _one(self, delivery: Delivery) -> Outcome:
        """Claim, hand over, forget. The nonce is fixed per start, so a repeated claim is the same claim."""
        run = delivery.run
        owner, claim = self._taken(delivery) or await self._claim(delivery)
        faults.hit("claim", "P4")
        if claim.state == "gone":
            return Settled()
        if claim.state == "lost":
            raise OwnerLost(f"claim of {run}")
        try:
            lease = self._lease(run, owner, claim)
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
            await self._handler(delivery, lease)
        finally:
            if self._live.get(run) is lease:
                del self._live[run]
        if not lease.ended:  # another's by now: its entry must not be acknowledged here
            raise OwnerLost(f"{run} was left before its end")
        return Settled()

    def _lease(self, run: str, owner: str, claim: Claim) -> Lease:
        hands = self._scripts, self._flushes, self._runs, self._seals
        return Lease(run, owner, claim, *hands, self._clock, self._chance)

    async def _claim(self, delivery: Delivery) -> tuple[str, Claim]:
        owner = f"{self._consumer}:{short_id(self._chance)}"
        where = delivery.run, delivery.stream, delivery.entry
        while True:
            try:
                return owner, await self._scripts.claim(*where, self._consumer, owner)
            except Unavailable:
                await self._clock.sleep(self._chance.uniform(*_BACKOFF))


def _measure_wait(claim: Claim, model: str) -> None:
    """From cleared to claimed, by the server's clock."""
    fields = claim.fields
    now = int(fields.get("deadline", b"0")) - claim.left_ms
    metrics.observe("headrace_queue_wait_seconds", max(0, now - int(fields.get("t:cleared", now))) / 1000, model=model)
