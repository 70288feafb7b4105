"""RequestAccepted -> a verdict, by each of the two families. A family always answers: pass, refuse, edits or skip.

The order is the same for both: nothing to look for under this policy -> skip; run decided already -> done; scan; and
when the family itself fails or runs out of time, its fail policy speaks (open -> skip, closed -> refuse with
guardrail_unavailable). Whatever a scanner raises is such a failure: a text that breaks a scanner is never waved
through by accident and never kills the worker.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence

import msgspec

from base import logs, metrics
from base.clock import Clock
from base.crypto import digest
from schemas.errors import Unavailable
from schemas.events import RequestAccepted, RequestRefused
from schemas.outcomes import Dead, Decided, Delivery, Done, Outcome
from schemas.ports import Bodies
from schemas.verdicts import SKIP, Verdict
from workers.guardrails.look import Find, failed, look, persons_find, rules_find
from workers.guardrails.policy import PERSONS, RULES, Policies, Policy
from workers.guardrails.ports import Names
from workers.guardrails.rules import Decision, TookTooLong
from workers.guardrails.scanners.finding import KINDS

log = logs.room("guardrails")


class Guard:
    """One family as a handler; `find` finds, everything else is the same for all families."""

    def __init__(self, family: str, policies: Policies, bodies: Bodies, clock: Clock, find: Find) -> None:
        self.family = family
        self._policies, self._bodies, self._clock, self._find = policies, bodies, clock, find

    async def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """One verdict per accepted request, in order. Unavailable when the store that holds the bodies is away."""
        if len(deliveries) > 1 and any(self._waits(delivery) for delivery in deliveries):
            return await asyncio.gather(*[self.judge(delivery) for delivery in deliveries])
        return [await self.judge(delivery) for delivery in deliveries]

    def _waits(self, delivery: Delivery) -> bool:
        """Whether the verdict takes more than a look at what came with the entry."""
        if self.family == RULES and delivery.body:
            return False
        return bool(self._policies.find(delivery.event.model, delivery.event.key_id).families[self.family].kinds)

    async def judge(self, delivery: Delivery) -> Outcome:
        """The verdict on one accepted request."""
        event: RequestAccepted = delivery.event
        policy = self._policies.find(event.model, event.key_id)
        if not policy.families[self.family].kinds:
            return self._verdict(event, policy, Decision(outcome=SKIP, found={}), 0.0)
        body = await self._bodies.body(event.run, delivery.body)
        if body is None:
            return Done()
        if digest(body) != event.body_digest:
            return Dead("the body is not the one that was accepted: its digest differs")
        started = self._clock.monotonic()
        decision = await self._decide(event, policy, body)
        return self._verdict(event, policy, decision, self._clock.monotonic() - started)

    async def _decide(self, event: RequestAccepted, policy: Policy, body: bytes) -> Decision:
        try:
            fields = msgspec.json.decode(body)
            _, decision = await look(self._find, self.family, policy, event.route, fields, event.body_digest)
            return decision
        except (TimeoutError, TookTooLong, Unavailable) as error:
            log.warning("a family could not judge", family=self.family, run=event.run, reason=type(error).__name__)
        except Exception as error:
            log.error("a scanner raised", family=self.family, run=event.run, reason=_where(error))
        return failed(self.family, policy)

    def _verdict(self, event: RequestAccepted, policy: Policy, decision: Decision, took: float) -> Decided:
        verdict = Verdict(
            run=event.run,
            family=self.family,
            outcome=decision.outcome,
            policy=policy.version,
            body_digest=event.body_digest,
            edits=decision.edits,
            failure=decision.failure,
            found=decision.found,
            took_us=int(took * 1_000_000),
            sought=decision.sought,
            seen=decision.seen,
        )
        metrics.inc("headrace_verdicts_total", family=self.family, verdict=decision.outcome)
        metrics.observe("headrace_guardrail_duration_seconds", took, family=self.family)
        for kind in KINDS if decision.found else ():
            if kind in decision.found:
                metrics.inc("headrace_findings_total", decision.found[kind], scanner=kind, action=policy.actions[kind])
        if decision.failure is None:
            return Decided(verdict)
        return Decided(verdict, RequestRefused(run=event.run, family=self.family, failure=decision.failure))


def _where(error: Exception) -> str:
    """What was raised, in which file and line. Never the message: it may quote the text under scan."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"


def rules_guard(policies: Policies, bodies: Bodies, clock: Clock) -> Guard:
    """The family `rules`."""
    return Guard(RULES, policies, bodies, clock, rules_find(clock))


def persons_guard(policies: Policies, bodies: Bodies, clock: Clock, names: Names, max_characters: int) -> Guard:
    """The family `persons`, which asks `names`."""
    return Guard(PERSONS, policies, bodies, clock, persons_find(names, max_characters))
