"""A cleared run's way to its end: verify, choose, call, relay, end. One handler; the table stands at the foot.

Every path ends in exactly one terminal frame with its terminal fact, or leaves the run to whoever owns it now. The
engine's connection is closed at once on every path that does not read its answer to the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from base import logs
from base.clock import Clock
from base.crypto import digest
from providers.openai_continue import Told
from providers.openai_openai import wants_usage
from schemas.envelope import VerifierPort
from schemas.errors import Failure, OwnerLost, Refusal
from schemas.events import RequestCleared, RequestFailed, Usage
from schemas.frames import END, ERROR, encode_failure
from schemas.ports import Catalog, RunLease
from schemas.records import SPEAKS_RESPONSES
from schemas.routes import GUARDRAILS, MODERATIONS
from workers.router.attempt import Work
from workers.router.call import Caller
from workers.router.choice import Absent, Place
from workers.router.clearance import clear, edited
from workers.router.health import Health
from workers.router.interrupt import Interrupt, Stopped
from workers.router.moderation import moderation
from workers.router.pools import Pools
from workers.router.resume import end_if_whole, heard, last_words, take_up, usage_of_sent
from workers.router.rules import (
    CANCELLED,
    NO_ENGINE,
    OUT_OF_TIME,
    TAKEN_OVER,
    RetryWindow,
    asked_early,
    public_headers,
)
from workers.router.settings import Early

log = logs.room("router")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the router works with; made once in app.py."""

    caller: Caller
    catalog: Catalog
    verifier: VerifierPort
    clock: Clock
    pools: Pools
    health: Health
    retries: RetryWindow
    attempts: int = 3
    continuations: int = 3
    early: Early = "own"


class Router:
    """Handles RequestCleared. Holds no state of a run beyond `handle`."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._clock = needs.clock

    @property
    def pools(self) -> Pools:
        """Whose slots this router uses."""
        return self._needs.pools

    async def share(self) -> None:
        """Once a second: see Health.share."""
        await self._needs.health.share()

    async def handle(self, lease: RunLease) -> None:
        """Bring a run to its end. Returns silently when the run is another's; raises Unavailable when a store
        stayed away, before anything was sent: then the entry is tried again."""
        started = self._clock.monotonic()
        try:
            sent = await heard(lease) if lease.sequence else None
            try:
                work = self._clear(lease, started, sent)
            except Refusal as refusal:
                if sent is not None:
                    await self._end_taken_over(lease, sent)
                    return
                log.error("run not cleared", run=lease.run, code=refusal.failure.code, reason=str(refusal))
                fact = RequestFailed(run=lease.run, failure=refusal.failure, events=1)
                await self._end_error(lease, refusal.failure, fact)
                return
            if lease.accepted.route == MODERATIONS and not lease.sequence:
                await self._tell(work)
            else:
                await self._serve(work)
        except OwnerLost as lost:
            say = log.warning if lease.claimed else log.info
            say("run is another's now", run=lease.run, reason=str(lost))

    def used(self) -> dict[str, int]:
        """Endpoint -> requests that this process has there now."""
        return self._needs.pools.used()

    def _clear(self, lease: RunLease, started: float, sent: Told | None) -> Work:
        """The run as its verdicts allow it. sent: by earlier owners. Refusal."""
        accepted = lease.accepted
        leave = clear(accepted, digest(lease.body), lease.verdicts, self._needs.verifier)
        return Work(
            lease=lease,
            grant=leave.grant,
            body=edited(lease.body, leave.edits),
            said=leave.said,
            show_usage=accepted.stream and wants_usage(lease.body),
            started=started,
            usage=usage_of_sent(lease, sent) if sent else None,
            sent=sent,
            continued=max(lease.epoch - 2, 0),
        )

    async def _tell(self, work: Work) -> None:
        """What the guards saw is the answer: no engine is called, nothing is counted as tokens."""
        work.endpoint, work.first_at = GUARDRAILS, self._clock.monotonic()
        answer = moderation(work.lease.run, orjson.loads(work.body), work.said)
        fact = work.completed(Usage(), "", 1, work.first_at)
        await work.lease.end(END, orjson.dumps(answer), 1, fact, public_headers(work.grant, GUARDRAILS, stream=False))

    async def _serve(self, work: Work) -> None:
        """Call endpoints until one answered, the run is cancelled or nothing more may be tried."""
        with Interrupt(work.lease.cancelled) as interrupt:
            try:
                failure = await self._try_endpoints(work, interrupt)
            except Stopped:
                now = self._clock.monotonic()
                await work.lease.end(ERROR, encode_failure(CANCELLED), 1, work.cancelled(now))
                return
        if failure is not None:
            await self._end_error(work.lease, failure, work.failed(failure, self._clock.monotonic()), work)

    async def _try_endpoints(self, work: Work, interrupt: Interrupt) -> Failure | None:
        """None when the run has ended with an answer, else why it has not."""
        self._needs.retries.ran(self._clock.monotonic())
        last = TAKEN_OVER if work.lease.sequence else None
        while True:
            if last is not None and work.lease.sequence:
                if not await self._goes_on(work, interrupt):
                    return last
                if await end_if_whole(work, self._clock.monotonic(), self._clock.now_ms()):
                    return None
            place = await self._place(work, interrupt)
            if not isinstance(place, Place):
                work.unserved(place, self._clock.monotonic())
                return last or place
            with self._needs.pools.using(place) as use:
                work.answered = use.answered
                try:
                    if not work.lease.claimed and not asked_early(place.endpoint, self._needs.early):
                        await interrupt.wait(work.lease.confirmed())
                    judged = await self._needs.caller.call(work, place.endpoint, interrupt)
                except Stopped:
                    await self._needs.health.silent(use)
                    raise
            await self._needs.health.ended(use, judged)
            if judged is None:
                return None
            if work.told is None or not judged.elsewhere:
                last = judged.failure
            if judged.wordless and await self._has_words(work, interrupt):
                continue
            if not judged.elsewhere or len(work.attempts) >= self._needs.attempts:
                return last
            if not work.lease.sequence and not self._needs.retries.take(self._clock.monotonic()):
                log.warning("no retry left in the budget", run=work.lease.run, endpoint=place.name)
                return last

    async def _has_words(self, work: Work, interrupt: Interrupt) -> bool:
        """Whether an endpoint of the pool can be asked for what the present one has no words for."""
        endpoints = await interrupt.wait(self._needs.catalog.endpoints(work.grant.pool))
        work.unable |= {one.endpoint for one in endpoints if SPEAKS_RESPONSES not in one.speaks}
        return any(one.endpoint not in work.tried for one in endpoints)

    async def _goes_on(self, work: Work, interrupt: Interrupt) -> bool:
        """Whether an answer that broke off may be continued; if so `work` says from where."""
        endpoints = await interrupt.wait(self._needs.catalog.endpoints(work.grant.pool))
        reason = await interrupt.wait(take_up(work, endpoints, self._needs.continuations))
        if reason:
            log.info("not continued", run=work.lease.run, sequence=work.lease.sequence, reason=reason)
        else:
            log.warning("answer is continued", run=work.lease.run, sequence=work.lease.sequence)
        return not reason

    async def _place(self, work: Work, interrupt: Interrupt) -> Place | Failure:
        """An untried endpoint with a free slot, waited for until the deadline; or why there is none."""
        pools, pool, again = self._needs.pools, work.grant.pool, False
        while True:
            if again or not pools.queue(pool):
                found = await self._pick(work, interrupt)
                if isinstance(found, Place):
                    return found
                if found is Absent.none:
                    return NO_ENGINE
            left = work.deadline - self._clock.monotonic()
            if left <= 0:
                return OUT_OF_TIME
            await interrupt.wait(pools.wait(pool, left, again))
            again = True

    async def _pick(self, work: Work, interrupt: Interrupt) -> Place | Absent:
        """The endpoint to call now; the run's record will say what it was chosen from."""
        pools, pool, tried = self._needs.pools, work.grant.pool, work.tried
        endpoints = await interrupt.wait(self._needs.catalog.endpoints(pool))
        while True:
            found = pools.pick(pool, endpoints, tried)
            chosen = found if isinstance(found, Place) else None
            work.why = pools.explain(pool, endpoints, tried, chosen)
            if chosen is None or chosen.breaker.closed or await interrupt.wait(self._needs.health.may_call(chosen)):
                return found

    async def _end_taken_over(self, lease: RunLease, sent: Told) -> None:
        """An earlier owner died after its first frame: a second answer must never follow the half of another."""
        fact = RequestFailed(
            run=lease.run,
            failure=TAKEN_OVER,
            model=lease.accepted.model,
            usage=usage_of_sent(lease, sent),
            events=lease.sequence + 1,
        )
        await self._end_error(lease, TAKEN_OVER, fact)

    async def _end_error(
        self, lease: RunLease, failure: Failure, fact: RequestFailed, work: Work | None = None
    ) -> None:
        headers = public_headers(work.grant, work.endpoint, stream=False) if work and not lease.sequence else None
        kind, payload = await last_words(lease, failure)
        await lease.end(kind, payload, 1, fact, headers)


def handlers(router: Router) -> dict[type[object], object]:
    """Event -> handler."""
    return {RequestCleared: router.handle}
