"""The two families as handlers: they always answer, and failure speaks by policy."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from base.clock import SystemClock
from base.crypto import digest
from schemas.envelope import Envelope
from schemas.errors import Unavailable
from schemas.events import RequestAccepted, RequestRefused
from schemas.outcomes import Dead, Decided, Delivery, Done
from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, TOKEN_IDS
from schemas.verdicts import EDITS, PASS, REFUSE, SKIP, Verdict
from workers.guardrails.handlers import Guard, persons_guard, rules_guard
from workers.guardrails.look import IN_THREAD
from workers.guardrails.policy import Policies
from workers.guardrails.scanners.persons_fake import ScriptedNames
from workers.guardrails.settings import GuardrailSettings

CARD = "4111 1111 1111 1111"


class Shelf:
    """Bodies by run; a run that is not there has been decided."""

    def __init__(self, **bodies: bytes) -> None:
        self.bodies = bodies
        self.asked: list[str] = []

    async def body(self, run: str, sealed: bytes = b"") -> bytes | None:
        self.asked.append(run)
        return self.bodies.get(run)


class AwayShelf:
    async def body(self, run: str, sealed: bytes = b"") -> bytes | None:
        raise Unavailable("no store")


def policies(**settings: Any) -> Policies:
    return Policies(GuardrailSettings.model_validate(settings))


def user(text: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()


def delivery(body: bytes, run: str = "r1", **changes: Any) -> Delivery:
    accepted: dict[str, Any] = {
        "run": run, "route": "/v1/chat/completions", "model": "m", "stream": False, "key_id": "k", "secret_mac": "",
        "mac_kid": "", "body_digest": digest(body), "body_bytes": len(body), "door": "d",
        "families": ("rules", "persons"),
    }  # fmt: skip
    event = RequestAccepted(**(accepted | changes))
    envelope = Envelope(id="e", type="RequestAccepted", v=1, by="ingress", run=run, data=msgspec.Raw(b"{}"))
    return Delivery(stream="{0}:requests", entry="1-0", envelope=envelope, event=event)


async def answer(guard: Guard, body: bytes, **changes: Any) -> Decided:
    (outcome,) = await guard.handle([delivery(body, **changes)])
    assert isinstance(outcome, Decided)
    return outcome


def rules(body: bytes, **settings: Any) -> Guard:
    return rules_guard(policies(**settings), Shelf(r1=body), SystemClock())


def names(body: bytes, people: ScriptedNames, most: int = 10_000, **settings: Any) -> Guard:
    settings.setdefault("actions", {"persons": "redact"})
    return persons_guard(policies(**settings), Shelf(r1=body), SystemClock(), people, most)


async def test_a_verdict_names_run_family_body_and_policy() -> None:
    body = user("hello")
    verdict = (await answer(rules(body), body)).verdict
    assert (verdict.run, verdict.family, verdict.outcome) == ("r1", "rules", PASS)
    assert verdict.body_digest == digest(body)
    assert verdict.policy == policies().find().version


async def test_redaction_travels_as_edits_without_the_text() -> None:
    body = user(f"card {CARD}")
    verdict = (await answer(rules(body), body)).verdict
    assert verdict.outcome == EDITS and verdict.found == {"card": 1}
    assert verdict.edits[0].digest == digest(body)
    assert "4111" not in repr(verdict)


async def test_a_block_is_a_refusal_with_its_fact() -> None:
    body = user(f"card {CARD}")
    outcome = await answer(rules(body, actions={"card": "block"}), body)
    assert outcome.verdict.outcome == REFUSE
    assert isinstance(outcome.ending, RequestRefused) and outcome.ending.family == "rules"
    assert outcome.ending.failure.code == "content_policy_violation"


async def test_policy_follows_model_and_key() -> None:
    body = user(f"card {CARD}")
    guard = rules(body, models={"strict": {"actions": {"card": "block"}}}, keys={"free": {"actions": {"card": "off"}}})
    assert (await answer(guard, body)).verdict.outcome == EDITS
    assert (await answer(guard, body, model="strict")).verdict.outcome == REFUSE
    assert (await answer(guard, body, model="strict", key_id="free")).verdict.outcome == PASS


async def test_a_family_with_nothing_to_look_for_skips_without_opening_the_body() -> None:
    body = user("John Smith")
    shelf, people = Shelf(r1=body), ScriptedNames("John Smith")
    guard = persons_guard(policies(), shelf, SystemClock(), people, 1000)
    assert (await answer(guard, body)).verdict.outcome == SKIP
    assert shelf.asked == [] and people.calls == 0


async def test_a_decided_run_is_only_acknowledged() -> None:
    guard = rules_guard(policies(), Shelf(), SystemClock())
    assert await guard.handle([delivery(user("x"))]) == [Done()]


async def test_a_body_that_is_not_the_accepted_one_is_poison() -> None:
    guard = rules(user("other"))
    (outcome,) = await guard.handle([delivery(user("x"))])
    assert isinstance(outcome, Dead)


async def test_a_store_that_is_away_is_not_a_verdict() -> None:
    with pytest.raises(Unavailable):
        await rules_guard(policies(), AwayShelf(), SystemClock()).handle([delivery(user("x"))])


async def test_every_delivery_of_a_batch_gets_its_own_answer_in_order() -> None:
    bodies = {f"r{n}": user(f"{n} {CARD if n % 2 else ''}") for n in range(20)}
    guard = rules_guard(policies(), Shelf(**bodies), SystemClock())
    outcomes = await guard.handle([delivery(body, run=run) for run, body in bodies.items()])
    verdicts = [outcome.verdict for outcome in outcomes if isinstance(outcome, Decided)]
    assert [(verdict.run, verdict.outcome) for verdict in verdicts] == [
        (f"r{n}", EDITS if n % 2 else PASS) for n in range(20)
    ]


async def test_a_large_body_is_judged_like_a_small_one() -> None:
    body = user("word " * IN_THREAD + CARD)
    assert (await answer(rules(body), body)).verdict.found == {"card": 1}


async def test_rules_that_run_out_of_time_refuse_or_skip_by_policy() -> None:
    body = user("x")
    late = {"families": {"rules": {"timeout": 1e-9, "fail": "closed"}}}
    closed = (await answer(rules(body, **late), body)).verdict
    assert closed.outcome == REFUSE and closed.failure is not None and closed.failure.code == "guardrail_unavailable"
    late["families"]["rules"]["fail"] = "open"
    assert (await answer(rules(body, **late), body)).verdict.outcome == SKIP


async def test_persons_are_redacted_where_they_stand() -> None:
    body = user("Ask José Álvarez 🙂 and John Smith's boss")
    verdict = (await answer(names(body, ScriptedNames("José Álvarez", "John Smith's")), body)).verdict
    text = json.loads(body)["messages"][0]["content"]
    assert [text[edit.start : edit.end] for edit in verdict.edits] == ["José Álvarez", "John Smith"]
    assert verdict.found == {"persons": 2} and {edit.replacement for edit in verdict.edits} == {"[PERSON]"}


async def test_a_person_in_a_long_text_and_across_a_cut_is_found_once() -> None:
    text = ("word " * 395) + "ask John Smith now " + ("word " * 2000) + "John Smith"
    body = user(text)
    verdict = (await answer(names(body, ScriptedNames("John Smith"), most=100_000), body)).verdict
    assert [text[edit.start : edit.end] for edit in verdict.edits] == ["John Smith", "John Smith"]


async def test_a_broken_recogniser_refuses_or_skips_by_policy() -> None:
    body = user("John Smith")
    closed = (await answer(names(body, ScriptedNames(broken=True)), body)).verdict
    assert closed.outcome == REFUSE and closed.failure is not None
    assert closed.failure.code == "guardrail_unavailable" and "persons" in closed.failure.message
    settings: dict[str, Any] = {"actions": {"persons": "redact"}, "families": {"persons": {"fail": "open"}}}
    assert (await answer(names(body, ScriptedNames(broken=True), **settings), body)).verdict.outcome == SKIP


async def test_more_text_than_persons_can_judge_counts_as_failure() -> None:
    body = user("x" * 2000)
    assert (await answer(names(body, ScriptedNames(), most=1000), body)).verdict.outcome == REFUSE


async def test_a_scanner_that_raises_is_a_failure_and_its_log_quotes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Quoting:
        async def find(self, texts: Any) -> Any:
            raise RuntimeError(f"cannot read {texts!r}")

    body = user("canary-text")
    guard = persons_guard(policies(actions={"persons": "flag"}), Shelf(r1=body), SystemClock(), Quoting(), 1000)
    assert (await answer(guard, body)).verdict.outcome == REFUSE
    assert "a scanner raised" in caplog.text
    assert "canary-text" not in "".join(str(record.__dict__) for record in caplog.records)


def test_a_verdict_is_a_value_of_the_schema() -> None:
    assert Verdict(run="r", family="rules", outcome=PASS, policy="p", body_digest="d").edits == ()


# --- moderations: what is seen, nothing decided ---------------------------------------------------------------------


def moderation(given: Any, **more: Any) -> bytes:
    return json.dumps({"model": "omni", "input": given, **more}).encode()


async def test_a_moderation_is_told_what_is_seen_and_where_whatever_the_actions_say() -> None:
    body = moderation(["calm", f"{CARD} and {CARD}"])
    verdict = (await answer(rules(body, actions={"card": "block"}), body, route=MODERATIONS)).verdict
    assert (verdict.outcome, verdict.edits, verdict.failure) == (PASS, (), None)
    assert [(seen.pointer, seen.kind) for seen in verdict.seen] == [("/input/1", "card")]
    assert 0 < verdict.seen[0].score <= 1 and verdict.found == {"card": 2}
    assert "card" in verdict.sought and "persons" not in verdict.sought and "4111" not in repr(verdict)


async def test_a_moderation_looks_at_its_input_alone() -> None:
    body = moderation("calm", note=f"card {CARD}", inputs=[CARD])
    verdict = (await answer(rules(body), body, route=MODERATIONS)).verdict
    assert verdict.seen == () and verdict.found == {}


async def test_kinds_that_are_off_are_not_said_to_be_absent() -> None:
    body = moderation(CARD)
    verdict = (await answer(rules(body, actions={"card": "off"}), body, route=MODERATIONS)).verdict
    assert "card" not in verdict.sought and verdict.seen == ()


async def test_a_moderation_has_a_policy_of_its_own_name() -> None:
    body = moderation("John Smith")
    settings: dict[str, Any] = {"actions": {}, "models": {"moderations": {"actions": {"persons": "flag"}}}}
    guard = names(body, ScriptedNames("John Smith"), **settings)
    verdict = (await answer(guard, body, route=MODERATIONS, model="moderations")).verdict
    assert [(seen.pointer, seen.kind) for seen in verdict.seen] == [("/input", "persons")]


async def test_a_family_that_fails_fails_a_moderation_too() -> None:
    body = moderation("John Smith")
    verdict = (await answer(names(body, ScriptedNames(broken=True)), body, route=MODERATIONS)).verdict
    assert verdict.failure is not None and verdict.failure.code == "guardrail_unavailable"


# --- token ids: nobody can read them --------------------------------------------------------------------------------


def tokens(route: str, value: Any) -> bytes:
    return json.dumps({"model": "m", "prompt" if route == COMPLETIONS else "input": value}).encode()


@pytest.mark.parametrize("route", [COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("value", [[1, 2], [[1, 2], [3]]])
async def test_token_ids_are_refused_while_something_is_kept_from_engines(route: str, value: Any) -> None:
    body = tokens(route, value)
    verdict = (await answer(rules(body), body, route=route)).verdict
    assert verdict.outcome == REFUSE and verdict.failure is not None
    assert (verdict.failure.code, verdict.failure.param) == ("invalid_request", TOKEN_IDS[route])


@pytest.mark.parametrize(
    "settings",
    [
        {"token_ids": "pass"},
        {"models": {"m": {"token_ids": "pass"}}},
        {"keys": {"k": {"token_ids": "pass"}}},
        {"actions": dict.fromkeys(("secrets", "card", "iban", "us_ssn"), "flag")},
    ],
)
async def test_token_ids_pass_where_the_policy_lets_them_or_keeps_nothing(settings: dict[str, Any]) -> None:
    body = tokens(EMBEDDINGS, [1, 2])
    assert (await answer(rules(body, **settings), body, route=EMBEDDINGS)).verdict.outcome == PASS


async def test_the_key_has_the_last_word_on_token_ids() -> None:
    body = tokens(COMPLETIONS, [1, 2])
    settings = {"token_ids": "pass", "keys": {"k": {"token_ids": "refuse"}}}
    assert (await answer(rules(body, **settings), body, route=COMPLETIONS)).verdict.outcome == REFUSE


@pytest.mark.parametrize("name", ["prompt_embeds", "input_embeds", "prompt_token_ids", "input_ids"])
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, EMBEDDINGS])
async def test_what_engines_take_beside_the_text_counts_as_token_ids_on_every_route(route: str, name: str) -> None:
    text = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}
    body = json.dumps({"model": "m", **text, name: [1, 2]}).encode()
    verdict = (await answer(rules(body), body, route=route)).verdict
    assert verdict.outcome == REFUSE and verdict.failure is not None and verdict.failure.param == name


async def test_texts_do_not_count_as_token_ids() -> None:
    for value in ("a text", ["one", "two"]):
        body = tokens(COMPLETIONS, value)
        assert (await answer(rules(body), body, route=COMPLETIONS)).verdict.outcome == PASS
