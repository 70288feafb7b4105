"""An operator's trial of the guardrails: the same families as for a request, and it says which of them ran."""

from __future__ import annotations

from typing import Any

import pytest

from base.clock import SystemClock
from base.ids import SystemRandom
from console.scan_desk import FAILED, NOTHING, RAN, NamesChild, ScanDesk, Trial, make_scan_desk
from schemas.routes import CHAT, COMPLETIONS, MODERATIONS
from workers.guardrails.policy import Policies
from workers.guardrails.scanners.persons_fake import ScriptedNames
from workers.guardrails.settings import GuardrailSettings

CARD = "4111 1111 1111 1111"


class Child(ScriptedNames):
    """Scripted names that can be started and sent away."""

    stopped = 0

    async def start(self) -> None:
        await self.find(["-"])

    async def stop(self) -> None:
        self.stopped += 1


def desk(child: NamesChild | None = None, **settings: Any) -> ScanDesk:
    made = GuardrailSettings.model_validate(settings)
    people = child or Child()
    return ScanDesk(policies=Policies(made), clock=SystemClock(), names=lambda: people, most=1000)


def states(trial: Trial) -> dict[str, str]:
    return {one.family: one.state for one in trial.looked}


def chat(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


async def test_a_request_is_shown_as_an_engine_would_get_it() -> None:
    trial = await desk().scan(chat(f"card {CARD}"), CHAT)
    assert (trial.outcome, trial.body) == ("edits", chat("card [CARD]"))
    assert states(trial) == {"rules": RAN, "persons": NOTHING}


async def test_both_families_edit_one_text_and_the_child_is_sent_away() -> None:
    child = Child("John Smith")
    trial = await desk(child, actions={"persons": "redact"}).scan(chat(f"John Smith has {CARD}"), CHAT)
    assert trial.body == chat("[PERSON] has [CARD]")
    assert states(trial) == {"rules": RAN, "persons": RAN} and child.stopped == 1


@pytest.mark.parametrize(("fail", "outcome"), [("closed", "refuse"), ("open", "pass")])
async def test_a_family_that_fails_is_said_and_its_policy_speaks(fail: str, outcome: str) -> None:
    settings: dict[str, Any] = {"actions": {"persons": "redact"}, "families": {"persons": {"fail": fail}}}
    child = Child(broken=True)
    trial = await desk(child, **settings).scan(chat("hello"), CHAT)
    assert (trial.outcome, states(trial)["persons"], child.stopped) == (outcome, FAILED, 1)
    assert ("could not judge" in trial.message) is (fail == "closed")


async def test_a_block_shows_no_body_and_a_moderation_never_blocks() -> None:
    strict: dict[str, Any] = {"actions": {"card": "block"}}
    trial = await desk(**strict).scan(chat(CARD), CHAT)
    assert (trial.outcome, trial.body) == ("refuse", None) and "card" in trial.message
    told = await desk(**strict).scan({"input": CARD}, MODERATIONS)
    assert told.outcome == "pass" and [part.pointer for part, _ in told.looked[0].found] == ["/input"]


async def test_token_ids_are_refused_as_for_a_request() -> None:
    trial = await desk().scan({"model": "m", "prompt": [1, 2]}, COMPLETIONS)
    assert trial.outcome == "refuse" and "token ids" in trial.message


async def test_the_real_language_model_is_asked_where_the_policy_looks_for_persons() -> None:
    made = make_scan_desk(
        GuardrailSettings.model_validate({"actions": {"persons": "redact"}, "families": {"persons": {"timeout": 60}}}),
        SystemClock(),
        SystemRandom(),
    )
    trial = await made.scan({"text": "Please tell Angela Merkel about it."}, CHAT)
    assert (trial.body, states(trial)["persons"]) == ({"text": "Please tell [PERSON] about it."}, RAN)
