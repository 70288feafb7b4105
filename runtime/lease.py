"""Owning a run: write its frames, end it. Implements schemas.ports.RunLease.

Every write compares the owner first. While Redis is away the lease holds its frame and tries again (each write may be
run twice), so a short outage costs a running stream time, not its life.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

from base.alarm import Alarm
from base.clock import Clock
from base.ids import Random
from runtime import faults
from runtime.claims import Claim
from runtime.flushes import Flushes
from runtime.runs import Runs, cut_short
from runtime.scripts import Scripts, SealedFrame, Write
from runtime.seals import Seals, encode_headers
from schemas import envelope as wire
from schemas.errors import Code, Failure, OwnerLost, Unavailable
from schemas.events import RequestAccepted, Terminal
from schemas.frames import DATA, OWNER
from schemas.ports import Stored

BACKOFF = (0.05, 0.5)  # seconds, jittered, while Redis is away
_ACCEPTS = {"ingress": ("RequestAccepted",)}
_PAGE = 256  # frames of one read of what was sent
_BROKEN = Failure(
    code=Code.upstream_interrupted,
    message="The store lost a part of this answer; it ends here. Send the request again.",
)
T = TypeVar("T")


class Lease:
    """One claimed run in the hands of one router. While its claim is only promised (`claimed` is false) nothing is
    written: who wants to write waits until the claim is here, or the lease lost."""

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
        *,
        claimed: bool = True,
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
        self.claimed = claimed
        self._answered = Alarm()  # a claim that was promised is here, or will not come
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
        if self._lost:
            self._answered.set()

    def confirm(self, claim: Claim) -> None:
        """The claim is here, as it was promised."""
        self.claimed, self.deadline_s = True, claim.left_ms / 1000
        if "cancel" in claim.fields:
            self.hear("cancel")
        self._answered.set()

    async def confirmed(self) -> None:
        """See schemas.ports.RunLease."""
        if not self.claimed:
            await self._answered.wait()
        self._refuse_if_lost()

    async def flush(
        self, payload: bytes, events: int, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        """Store one data frame and push it to the watchers. OwnerLost when the run is another's."""
        await self.confirmed()
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
        if not self.claimed and not self._lost:
            self._answered.tell(lambda: self.offer(payload, events, told, headers, said=said))
            return
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
        await self.confirmed()
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
            raise OwnerLost(f"{self.run} was taken over" if self.claimed else f"{self.run} was not handed over")

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except Unavailable:
                await self._clock.sleep(self._chance.uniform(*BACKOFF))
