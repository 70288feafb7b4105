"""Findings become decisions: refusals name kinds, edits hide matches, and neither carries what was matched."""

from __future__ import annotations

import json
from typing import Any

from schemas.edits import apply_edits
from schemas.verdicts import EDITS, PASS, REFUSE
from workers.guardrails.policy import Policies, Policy
from workers.guardrails.rules import MAX_EDITS, Decision, decide, scan_parts, scan_text
from workers.guardrails.settings import GuardrailSettings
from workers.guardrails.text import parts

CARD = "4111 1111 1111 1111"


def policy(**actions: str) -> Policy:
    return Policies(GuardrailSettings.model_validate({"actions": actions})).find()


def judge(body: Any, rule: Policy) -> Decision:
    return decide(scan_parts(parts(body), rule, lambda: False), rule, "digest")


def user(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_a_clean_request_passes_without_edits() -> None:
    assert judge(user("hello"), policy()) == Decision(outcome=PASS, found={})


def test_redaction_replaces_the_match_by_its_mark() -> None:
    body = user(f"my card is {CARD}, thanks")
    decision = judge(body, policy())
    assert decision.outcome == EDITS
    assert apply_edits(body, decision.edits) == user("my card is [CARD], thanks")


def test_an_edit_names_body_place_and_kind_but_never_the_match() -> None:
    (edit,) = judge(user(f"é {CARD}"), policy()).edits
    assert (edit.digest, edit.pointer, edit.start, edit.end) == ("digest", "/messages/0/content", 2, 21)
    assert (edit.kind, edit.replacement) == ("card", "[CARD]")
    assert "4111" not in repr(edit)


def test_a_block_refuses_and_names_kinds_only() -> None:
    decision = judge(user(f"{CARD} and a@b.io"), policy(card="block", email="block"))
    assert decision.outcome == REFUSE and decision.failure is not None
    assert decision.failure.code == "content_policy_violation"
    assert "card" in decision.failure.message and "email" in decision.failure.message
    assert "4111" not in repr(decision) and "a@b" not in repr(decision)
    assert decision.edits == ()


def test_flagged_kinds_are_counted_and_change_nothing() -> None:
    decision = judge(user("a@b.io, c@d.io, 8.8.8.8"), policy())
    assert decision == Decision(outcome=PASS, found={"email": 2, "ip": 1})


def test_a_kind_that_is_off_is_not_even_counted() -> None:
    assert judge(user("a@b.io"), policy(email="off")).found == {}


def test_overlapping_matches_become_one_edit_over_both() -> None:
    settings = {"actions": {"email": "redact", "banned_words": "redact"}, "banned_words": ["mail john"]}
    rule = Policies(GuardrailSettings.model_validate(settings)).find()
    body = user("now mail john.doe@example.com today")
    decision = judge(body, rule)
    assert len(decision.edits) == 1 and decision.found == {"email": 1, "banned_words": 1}
    assert apply_edits(body, decision.edits) == user("now [REMOVED] today")


def test_a_bare_number_in_tool_arguments_stays_valid_json() -> None:
    arguments = '{"card": 4111111111111111, "list":[5500005555555559], "text": "x, 4111111111111111, y"}'
    body = {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]}]}
    apply_edits(body, judge(body, policy()).edits)
    edited = body["messages"][0]["tool_calls"][0]["function"]["arguments"]  # type: ignore[index]
    assert json.loads(edited) == {"card": "[CARD]", "list": ["[CARD]"], "text": "x, [CARD], y"}


def test_escapes_in_tool_arguments_neither_hide_a_match_nor_break() -> None:
    arguments = json.dumps({"mail": "first line\njohn@example.com", "at": "ann\u0040example.com"}).replace(
        "ann@", "ann\\u0040"
    )
    body = {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]}]}
    apply_edits(body, judge(body, policy(email="redact")).edits)
    edited = body["messages"][0]["tool_calls"][0]["function"]["arguments"]  # type: ignore[index]
    assert json.loads(edited) == {"mail": "first line\n[EMAIL]", "at": "[EMAIL]"}


def test_more_edits_than_the_bound_become_one_per_text() -> None:
    body = user(f"a {CARD} b; " * (MAX_EDITS + 1))
    decision = judge(body, policy())
    assert len(decision.edits) == 1 and decision.found["card"] == MAX_EDITS + 1
    assert "4111" not in json.dumps(apply_edits(body, decision.edits))


def test_more_edited_texts_than_the_bound_are_refused() -> None:
    body = {"input": [CARD] * (MAX_EDITS + 1)}
    assert judge(body, policy()).outcome == REFUSE


def test_scan_text_is_the_dry_run_of_a_policy() -> None:
    found = scan_text("a@b.io " + CARD, policy(email="off"))
    assert [(item.kind, item.start) for item in found] == [("card", 7)]
