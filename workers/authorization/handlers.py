"""RequestAccepted -> verdict, in batches: look up, judge, reserve, answer.

    1  every key and model of the batch is looked up once
    2  rules.judge decides each run; who is refused here reserves nothing
    3  the others reserve, one call per organization, in the order in which they arrived
    4  each run gets its Decided

Redelivery is harmless: the reservation is named by the run, so asking again gives the same answer and no second hold.
A run whose store is away gets Again, which takes it out of the batch: its neighbours go on (warm keys while PostgreSQL
is away). When nothing at all could be answered Unavailable is raised, and the engine waits without counting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from base import metrics
from base.clock import Clock
from policy.decision import Allowed, Refused
from policy.quotas import scopes_of
from schemas.errors import Code, Unavailable
from schemas.events import RequestAccepted, RequestRefused
from schemas.outcomes import Again, Decided, Delivery, Outcome
from schemas.ports import Catalog, Keys, Limits, Reserved
from schemas.records import KeyRecord, ModelRecord
from schemas.verdicts import Verdict
from workers.authorization import rules
from workers.authorization.rules import FailPolicy
from workers.authorization.settings import AuthorizationSettings

_RETRY_S = 0.2  # before a run whose store was away is tried alone
_SOON = Again(0.05, "its key may be free in a moment")  # longer than the ledger takes to settle an ended run
T = TypeVar("T")


class _Case(msgspec.Struct):
    """One run on its way through the batch: what is known of it so far."""

    run: RequestAccepted
    lifetime_ms: int
    judged: Allowed | Refused | Unavailable | None = None
    reserved: Reserved | Unavailable | None = None


class Authorization:
    """The handler of group `authorization`."""

    def __init__(
        self,
        keys: Keys,
        catalog: Catalog,
        limits: Limits,
        clock: Clock,
        settings: AuthorizationSettings,
        fail_policy: FailPolicy = rules.closed,
    ) -> None:
        self._keys, self._catalog, self._limits = keys, catalog, limits
        self._clock, self._settings, self._policy = clock, settings, settings.policy
        self._fail_policy = fail_policy

    async def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """One outcome per delivery, in order."""
        started = self._clock.monotonic()
        grace = self._settings.reservation_grace_ms
        cases = [_Case(item.event, item.envelope.deadline_ms + grace) for item in deliveries]
        await self._judge(cases)
        await self._reserve(cases)
        seconds = self._clock.monotonic() - started
        metrics.observe("headrace_stage_duration_seconds", seconds, stage=rules.FAMILY)
        answers = [
            None if _soon_free(item, case) else self._answer(case, int(seconds * 1e6))
            for item, case in zip(deliveries, cases, strict=True)
        ]
        failed = [answer for answer in answers if isinstance(answer, Unavailable)]
        if failed and len(failed) == len(answers):
            raise failed[0]
        return [_SOON if answer is None else _outcome(answer) for answer in answers]

    async def _judge(self, cases: Sequence[_Case]) -> None:
        """Steps 1 and 2."""
        keys = await _each(self._keys.find, (case.run.key_id for case in cases))
        models = await _each(self._catalog.model, (case.run.model for case in cases))
        now = self._clock.now_ms()
        for case in cases:
            case.judged = _judged(case.run, keys[case.run.key_id], models[case.run.model], now)

    async def _reserve(self, cases: Sequence[_Case]) -> None:
        """Step 3. A run of a key without limits asks nobody."""
        tenants: dict[str, list[tuple[_Case, Allowed]]] = {}
        for case in cases:
            if isinstance(case.judged, Allowed):
                if scopes_of(case.judged.key):
                    tenants.setdefault(case.judged.key.tenant, []).append((case, case.judged))
                else:
                    case.reserved = Reserved(granted=True)
        await _together([self._reserve_for(group) for group in tenants.values()])

    async def _reserve_for(self, group: Sequence[tuple[_Case, Allowed]]) -> None:
        """The runs of one organization, in one call."""
        wanted = [rules.reservation(case.run, allowed.key, case.lifetime_ms) for case, allowed in group]
        try:
            answers: Sequence[Reserved | Unavailable] = await self._limits.reserve(wanted)
        except Unavailable as error:
            answers = [error] * len(wanted)
        for (case, _), answer in zip(group, answers, strict=True):
            case.reserved = answer

    def _answer(self, case: _Case, took_us: int) -> Verdict | Unavailable:
        """Step 4, from what is known now."""
        run, judged, reserved = case.run, case.judged, case.reserved
        if isinstance(judged, Unavailable):
            return judged
        if isinstance(reserved, Unavailable):
            return reserved
        if isinstance(judged, Refused):
            caller = rules.known_caller(judged.key) if judged.key else None
            return rules.verdict(run, self._policy, judged.failure, caller, took_us)
        assert judged is not None and reserved is not None
        if not reserved.granted:
            metrics.inc("headrace_limit_rejections_total", limit=reserved.limit)
            caller = rules.known_caller(judged.key, reserved)
            return rules.verdict(run, self._policy, rules.over_limit(judged.key, reserved), caller, took_us)
        fail = rules.fail_policy(run, self._fail_policy)
        return rules.verdict(run, self._policy, None, rules.grant(run, judged, reserved, fail), took_us)


def _soon_free(delivery: Delivery, case: _Case) -> bool:
    """Whether its first refusal may be one of the past: a client that sends one request after the other is here before
    the end of the last one was settled. It is asked once more before it is refused."""
    reserved = case.reserved
    refused = isinstance(reserved, Reserved) and not reserved.granted and reserved.limit == "concurrency"
    return refused and delivery.starts == 0


def _judged(
    run: RequestAccepted, key: KeyRecord | Unavailable | None, model: ModelRecord | Unavailable | None, now_ms: int
) -> Allowed | Refused | Unavailable:
    """The decision; Unavailable where it would rest on what could not be read."""
    if isinstance(key, Unavailable):
        return key
    if not isinstance(model, Unavailable):
        return rules.judge(run, key, model, now_ms)
    judged = rules.judge(run, key, None, now_ms)
    absent = isinstance(judged, Refused) and judged.failure.code == Code.model_not_found.value
    return model if absent else judged


async def _each(look_up: Callable[[str], Awaitable[T]], names: Iterable[str]) -> dict[str, T | Unavailable]:
    """Every name once, all at once; a store that is away is an answer too."""
    wanted = list(dict.fromkeys(names))

    async def one(name: str) -> T | Unavailable:
        try:
            return await look_up(name)
        except Unavailable as error:
            return error

    return dict(zip(wanted, await _together([one(name) for name in wanted]), strict=True))


async def _together(work: Sequence[Awaitable[T]]) -> list[T]:
    """All at once; a single one without a task, which would cost more than a cached look-up."""
    return [await work[0]] if len(work) == 1 else list(await asyncio.gather(*work))


def _outcome(verdict: Verdict | Unavailable) -> Outcome:
    """A verdict as the engine takes it, with the terminal fact when it refuses."""
    if isinstance(verdict, Unavailable):
        return Again(_RETRY_S, str(verdict))
    metrics.inc("headrace_verdicts_total", family=rules.FAMILY, verdict=verdict.outcome)
    if verdict.failure is None:
        return Decided(verdict)
    return Decided(verdict, RequestRefused(run=verdict.run, family=rules.FAMILY, failure=verdict.failure))
