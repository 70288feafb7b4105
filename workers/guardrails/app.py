"""The wiring of room 2, the only place where it meets the runtime.

event             group     handler
RequestAccepted   rules     handlers.rules_guard
RequestAccepted   persons   handlers.persons_guard, over scanners.persons.Persons (a child process)
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field

from base import logs
from base.clock import Clock
from base.ids import Random
from runtime.app import Context, RunBodies, Stage
from workers.guardrails.handlers import Guard, persons_guard, rules_guard
from workers.guardrails.policy import PERSONS, RULES, Policies
from workers.guardrails.scanners.persons import Persons, ScannerUnavailable
from workers.guardrails.scanners.persons_child import MODEL
from workers.guardrails.settings import GuardrailSettings, PersonsChild

MISSING_DATA = (
    "guardrails: `persons` is switched on, but its language data is not installed: install headrace[persons] (in a "
    'checkout: run scripts/install), or set persons: "off" under guardrails.actions, models and keys'
)

UNASKED = (
    "guardrails: a policy uses the family `{0}`, which `families` of streams.yaml does not name: name it there, or "
    "switch off its kinds under guardrails.actions, models and keys"
)

_MODEL_S = 30.0  # the start waits this long for the language model; `headrace up` waits longer for its rooms

log = logs.room("guardrails")


@dataclass(slots=True)
class Room:
    """The stages of this process, and what has to be stopped after them."""

    policies: Policies
    stages: list[Stage] = field(default_factory=list)
    persons: Persons | None = None

    async def load(self) -> None:
        """Has the language model loaded when some policy uses it, before requests are taken whose time would pass
        meanwhile; else the first need starts its child. One that fails hinders nothing: the policy says what then."""
        if self.persons is None or not self.policies.uses(PERSONS):
            return
        try:
            async with asyncio.timeout(_MODEL_S):
                await self.persons.start()
        except (ScannerUnavailable, TimeoutError) as error:
            log.warning("the language model is not loaded yet", family=PERSONS, reason=str(error) or "it takes long")

    async def stop(self) -> None:
        """After the stages: nobody asks any more, so the child can go."""
        if self.persons:
            await self.persons.stop()


def build(context: Context, settings: GuardrailSettings, families: Sequence[str] = (RULES, PERSONS)) -> Room:
    """The room with those of the given families that streams.yaml still has. ValueError when it asks one no more that a
    policy uses: requests would pass unscanned; and when a policy looks for names and the model's data is not installed:
    they would wait for verdicts in vain."""
    room, topology = Room(Policies(settings)), context.topology
    for family in families:
        if family not in topology.families and room.policies.uses(family):
            raise ValueError(UNASKED.format(family))
        if family not in topology.streams["requests"].groups:
            continue
        if family == PERSONS and room.policies.uses(PERSONS) and importlib.util.find_spec(MODEL) is None:
            raise ValueError(MISSING_DATA)
        bodies = RunBodies(context.runs, context.seals(family))
        guard = _guard(room, family, bodies, context, settings)
        room.stages.append(Stage(group=family, handler=guard.handle, until=room.load if family == PERSONS else None))
    return room


def _guard(room: Room, family: str, bodies: RunBodies, context: Context, settings: GuardrailSettings) -> Guard:
    if family == RULES:
        return rules_guard(room.policies, bodies, context.clock)
    child = settings.persons_child
    room.persons = make_persons(child, context.clock, context.chance)
    return persons_guard(room.policies, bodies, context.clock, room.persons, child.max_characters)


def make_persons(child: PersonsChild, clock: Clock, chance: Random) -> Persons:
    """Who recognises persons; its child process starts with the first text."""
    return Persons(
        clock,
        chance,
        batch=child.batch,
        wait=child.wait_ms / 1000,
        call_timeout=child.call_timeout,
        start_timeout=child.start_timeout,
    )
