"""Which policy holds for whom, and that settings say no to what they don't know."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from workers.guardrails.policy import PERSONS, RULES, Policies
from workers.guardrails.settings import GuardrailSettings


def policies(text: str) -> Policies:
    return Policies(GuardrailSettings.model_validate(yaml.safe_load(text) or {}))


EXAMPLE = """
actions: {card: block, email: redact}
banned_words: [nightfall]
families:
  rules: {timeout: 1, fail: open}
models:
  bot: {actions: {persons: redact, email: flag}, banned_words: [daybreak]}
keys:
  k1: {actions: {email: off}, families: {persons: {enabled: false}}}
"""


def test_defaults_redact_what_is_sure_and_flag_the_rest() -> None:
    policy = policies("").find("m", "k")
    assert {kind for kind, action in policy.actions.items() if action == "redact"} == {
        "secrets",
        "card",
        "iban",
        "us_ssn",
    }
    assert policy.actions["email"] == policy.actions["injection"] == "flag"
    assert policy.families[PERSONS].kinds == frozenset()
    assert policy.families[RULES].fail == "closed"
    assert "banned_words" not in policy.families[RULES].kinds


def test_a_key_goes_before_a_model_and_a_model_before_the_default() -> None:
    table = policies(EXAMPLE)
    assert table.find("other", "other").actions["email"] == "redact"
    assert table.find("bot", "other").actions["email"] == "flag"
    assert table.find("bot", "k1").actions["email"] == "off"
    assert table.find("bot", "k1").actions["card"] == "block"


def test_banned_words_add_up_over_the_levels() -> None:
    table = policies(EXAMPLE)
    assert table.find("bot").banned_words == ("daybreak", "nightfall")
    assert table.find("x").banned_words == ("nightfall",)


def test_a_family_without_work_or_switched_off_looks_for_nothing() -> None:
    table = policies(EXAMPLE)
    assert table.find("bot").families[PERSONS].kinds == {"persons"}
    assert table.find("bot", "k1").families[PERSONS].kinds == frozenset()
    assert table.find("x").families[PERSONS].kinds == frozenset()
    assert table.uses(PERSONS) and table.uses(RULES)
    assert not policies("").uses(PERSONS)


def test_the_version_tells_policies_apart_and_equal_ones_not() -> None:
    table = policies(EXAMPLE)
    assert table.find("bot").version != table.find("x").version
    assert table.find("x").version == policies(EXAMPLE).find("y", "z").version
    assert len(table.find("x").version) == 12


def test_unknown_names_share_one_policy_so_callers_cannot_fill_the_memory() -> None:
    table = policies(EXAMPLE)
    assert table.find("a", "b") is table.find("c", "d")


@pytest.mark.parametrize(
    "wrong",
    [
        {"actions": {"emial": "redact"}},
        {"actions": {"email": "delete"}},
        {"action": {}},
        {"families": {"rules": {"timeout": 0}}},
        {"families": {"judges": {}}},
        {"families": {"rules": {"fail": "maybe"}}},
        {"models": {"m": {"models": {}}}},
        {"banned_words": [""]},
    ],
)
def test_settings_refuse_what_they_do_not_know(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GuardrailSettings.model_validate(wrong)
