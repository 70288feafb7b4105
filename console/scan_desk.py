"""An operator's trial: what the guardrails would find in a text or a whole request, and what would happen to it.

The same code as a request meets (workers/guardrails/look.py), in this process; nothing is kept, no run is made. Names
of persons are looked for only where the policy does; their language model then runs in a child process for the length
of the trial, one trial at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from base.clock import Clock
from base.ids import Random
from schemas.edits import apply_edits
from schemas.errors import Unavailable
from schemas.verdicts import EDITS, PASS, REFUSE
from workers.guardrails.app import make_persons
from workers.guardrails.look import Find, failed, look, persons_find, rules_find
from workers.guardrails.policy import PERSONS, RULES, Policies, Policy
from workers.guardrails.ports import Names
from workers.guardrails.rules import Decision, Found, TookTooLong, used_kinds
from workers.guardrails.settings import GuardrailSettings

RAN, NOTHING, FAILED = "ran", "nothing to look for", "failed"
_BODY = ""  # the digest that edits name; here they are applied at once


class NamesChild(Names, Protocol):
    """Who recognises persons, can be started beforehand and sent away; scanners.persons.Persons."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One family's part. state: ran | nothing to look for | failed."""

    family: str
    state: str
    decision: Decision
    found: Found = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All families. outcome: pass | refuse | edits. message: of a refusal. body: as an engine would see it, None when
    refused."""

    policy: Policy
    looked: Sequence[Looked]
    outcome: str
    message: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanDesk:
    """Makes trials. names: starts whoever recognises persons; most: characters they take."""

    policies: Policies
    clock: Clock
    names: Callable[[], NamesChild]
    most: int
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def scan(self, body: dict[str, Any], route: str, model: str = "", key_id: str = "") -> Trial:
        """The trial of a decoded body; it is changed in place. Never raises for what a scanner does."""
        policy = self.policies.find(model, key_id)
        looked = [await self._look(RULES, self._rules(), policy, route, body), await self._persons(policy, route, body)]
        refusals = [one.decision.failure for one in looked if one.decision.failure]
        if refusals:
            return Trial(policy=policy, looked=looked, outcome=REFUSE, message=refusals[0].message, body=None)
        edits = [edit for one in looked for edit in one.decision.edits]
        outcome = EDITS if edits else PASS
        return Trial(policy=policy, looked=looked, outcome=outcome, message="", body=apply_edits(body, edits))

    def _rules(self) -> Find:
        return rules_find(self.clock)

    async def _persons(self, policy: Policy, route: str, body: Any) -> Looked:
        """With a child of its own, whose start is not counted against the family's time."""
        if not used_kinds(policy, PERSONS):
            return _nothing(PERSONS)
        async with self._one:
            names = self.names()
            try:
                await names.start()
                return await self._look(PERSONS, persons_find(names, self.most), policy, route, body)
            except Unavailable:
                return Looked(family=PERSONS, state=FAILED, decision=failed(PERSONS, policy))
            finally:
                await names.stop()

    async def _look(self, family: str, find: Find, policy: Policy, route: str, body: Any) -> Looked:
        if not used_kinds(policy, family):
            return _nothing(family)
        try:
            found, decision = await look(find, family, policy, route, body, _BODY)
        except (TimeoutError, TookTooLong, Unavailable):
            return Looked(family=family, state=FAILED, decision=failed(family, policy))
        return Looked(family=family, state=RAN, decision=decision, found=found)


def _nothing(family: str) -> Looked:
    return Looked(family=family, state=NOTHING, decision=Decision(outcome=PASS, found={}))


def make_scan_desk(settings: GuardrailSettings, clock: Clock, chance: Random) -> ScanDesk:
    """The desk under the policies of these settings."""
    child = settings.persons_child
    return ScanDesk(
        policies=Policies(settings),
        clock=clock,
        names=lambda: make_persons(child, clock, chance),
        most=child.max_characters,
    )
