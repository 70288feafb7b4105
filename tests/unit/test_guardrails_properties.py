"""Properties over random requests: what is planted in any text is found, and no edit leaves it behind."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.edits import apply_edits
from workers.guardrails.policy import Policies
from workers.guardrails.rules import decide, scan_parts, scan_text
from workers.guardrails.scanners import scan
from workers.guardrails.scanners.fold import LEET, LETTERS, WORDS
from workers.guardrails.settings import GuardrailSettings
from workers.guardrails.text import parts, unescape

B62 = "a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"
PLANTED = {
    "secrets": "ghp_" + B62,
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "us_ssn": "219-45-6789",
    "email": "canary@example.com",
    "ip": "203.0.113.77",
}
POLICY = Policies(GuardrailSettings.model_validate({"actions": dict.fromkeys(PLANTED, "redact")})).find()

prose = st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "Z", "S", "Cf", "Mn")), max_size=60)
words = prose.map(lambda text: f"{text} ")
keys = st.text(alphabet="abcxyz/~_é ", min_size=1, max_size=6)


def json_values(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf | st.none() | st.booleans() | st.integers(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


@st.composite
def planted(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    kind = draw(st.sampled_from(sorted(PLANTED)))
    text = f"{draw(words)} here: {PLANTED[kind]} and {draw(words)}"
    spot: Any = text
    for _ in range(draw(st.integers(0, 5))):
        spot = [*draw(st.lists(json_values(words), max_size=2)), spot] if draw(st.booleans()) else {draw(keys): spot}
    body = draw(st.dictionaries(keys, json_values(words), max_size=3))
    body[draw(st.sampled_from(["messages", "prompt", "input", "tools", "vendor"]))] = spot
    return body, kind


@settings(max_examples=300, deadline=None)
@given(planted())
def test_what_is_planted_anywhere_in_text_is_found_and_no_edit_leaves_it(case: tuple[dict[str, Any], str]) -> None:
    body, kind = case
    decision = decide(scan_parts(parts(body), POLICY, lambda: False), POLICY, "d")
    assert decision.found.get(kind, 0) >= 1
    edited = apply_edits(copy.deepcopy(body), decision.edits)
    assert PLANTED[kind] not in json.dumps(edited, ensure_ascii=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(words | st.sampled_from(sorted(PLANTED.values())), max_size=8).map(" ".join))
def test_edits_leave_nothing_that_a_second_scan_would_edit(text: str) -> None:
    body = {"input": text}
    for _ in range(2):
        decision = decide(scan_parts(parts(body), POLICY, lambda: False), POLICY, "d")
        apply_edits(body, decision.edits)
    assert not any(value in body["input"] for value in PLANTED.values())


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_findings_lie_inside_the_text_in_order_whatever_it_is(text: str) -> None:
    found = scan(text, banned_words=("a", "b c"))
    assert all(0 <= item.start < item.end <= len(text) for item in found)
    assert found == sorted(found)
    assert scan_text(text, POLICY) == scan_text(text, POLICY)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_folding_has_a_way_back_to_every_character(text: str) -> None:
    for fold in (LETTERS, LEET, WORDS):
        assert len(text.translate(fold)) == (fold.ends(text)[-1] if text else 0)


@settings(max_examples=300, deadline=None)
@given(st.recursive(st.text(max_size=20), lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3)))
def test_unescaped_positions_point_at_the_same_characters(value: Any) -> None:
    text = json.dumps(value)
    resolved = unescape(text)
    if resolved is not None:
        plain, starts = resolved
        assert len(starts) == len(plain) + 1 and starts == sorted(starts) and starts[-1] == len(text)
        assert all(plain[i] == text[starts[i]] for i in range(len(plain)) if text[starts[i]] != "\\")
