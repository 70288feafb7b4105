"""May this caller do this? The order of the answers, and what they give away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from base.crypto import KeyRing, RingKey
from policy.api_keys import Credential, mint
from policy.decision import INVALID_KEY, Allowed, Need, Refused, authenticate, decide, visible
from policy.quotas import scopes_of
from policy.roles import unknown_scopes
from schemas.records import ADMIN, INFERENCE, KeyRecord, ModelRecord

NOW = 1_700_000_000_000
RING = KeyRing([RingKey("k1", b"\x01" * 32)])
SHOWN = mint(bytes(range(32)), RING).credential
NEXT = mint(bytes(range(32, 64)), KeyRing([RingKey("k2", b"\x02" * 32)]), key_id=SHOWN.key_id).credential
KEY = KeyRecord(
    key_id=SHOWN.key_id, tenant="acme", name="app", secret_mac=SHOWN.secret_mac, mac_kid="k1", models=("small", "org/*")
)
MODEL = ModelRecord(name="small", pool="small")
CHAT = Need(scope=INFERENCE, model="small")
ROTATED = replace(
    KEY,
    secret_mac=NEXT.secret_mac,
    mac_kid="k2",
    previous_mac=SHOWN.secret_mac,
    previous_mac_kid="k1",
    previous_until_ms=NOW + 1000,
)


def refusal(answer: Allowed | Refused) -> Refused:
    assert isinstance(answer, Refused)
    return answer


def test_a_living_key_with_scope_and_model_is_allowed() -> None:
    assert decide(KEY, SHOWN, CHAT, MODEL, NOW) == Allowed(key=KEY, model=MODEL)


def test_a_route_that_is_about_no_model_needs_none() -> None:
    assert decide(KEY, SHOWN, Need(scope=INFERENCE), None, NOW) == Allowed(key=KEY)


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (None, SHOWN),
        (replace(KEY, revoked_ms=NOW - 1), SHOWN),
        (replace(KEY, revoked_ms=NOW + 10**9), SHOWN),
        (replace(KEY, expires_ms=NOW), SHOWN),
        (KEY, replace(SHOWN, secret_mac="0" * 64)),
        (KEY, replace(SHOWN, secret_mac="")),
        (KEY, replace(SHOWN, mac_kid="k2")),
        (KEY, replace(SHOWN, key_id="ffffffffffffffff")),
        (replace(KEY, secret_mac=""), replace(SHOWN, secret_mac="")),
        (replace(KEY, previous_until_ms=NOW + 9), Credential(key_id=KEY.key_id, secret_mac="", mac_kid="")),
    ],
)
def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(record: KeyRecord | None, shown: Credential) -> None:
    for need, model in ((CHAT, MODEL), (CHAT, None), (Need(scope=ADMIN), None)):
        answer = refusal(decide(record, shown, need, model, NOW))
        assert answer.failure is INVALID_KEY
        assert answer.key is None


def test_the_401_says_what_to_do() -> None:
    assert "Authorization: Bearer" in INVALID_KEY.message
    assert INVALID_KEY.code == "invalid_api_key"


def test_the_stored_mac_is_not_a_credential_of_its_own() -> None:
    """Whoever reads the store holds MACs, not tokens: a MAC in the secret's place makes another MAC."""
    token = f"hr_{KEY.key_id}_{KEY.secret_mac[:48]}_{'0' * 24}"
    from policy.api_keys import present

    assert present(token, RING) is None


def test_a_key_expires_at_its_millisecond() -> None:
    key = replace(KEY, expires_ms=NOW)
    assert authenticate(key, SHOWN, NOW - 1)
    assert not authenticate(key, SHOWN, NOW)


def test_during_a_rotation_both_secrets_work_and_afterwards_the_new_one_only() -> None:
    assert authenticate(ROTATED, NEXT, NOW)
    assert authenticate(ROTATED, SHOWN, NOW)
    assert authenticate(ROTATED, NEXT, NOW + 1000)
    assert not authenticate(ROTATED, SHOWN, NOW + 1000)


def test_a_revoked_key_is_dead_with_both_secrets() -> None:
    dead = replace(ROTATED, revoked_ms=NOW)
    assert not authenticate(dead, NEXT, NOW)
    assert not authenticate(dead, SHOWN, NOW)


def test_scope_is_judged_before_the_model() -> None:
    answer = refusal(decide(replace(KEY, scopes=(ADMIN,)), SHOWN, CHAT, None, NOW))
    assert answer.failure.code == "permission_denied"
    assert "`inference`" in answer.failure.message
    assert answer.key is not None


def test_admin_does_not_follow_from_inference_nor_the_other_way_round() -> None:
    assert refusal(decide(KEY, SHOWN, Need(scope=ADMIN), None, NOW)).failure.code == "permission_denied"
    admin = replace(KEY, scopes=(ADMIN,))
    assert isinstance(decide(admin, SHOWN, Need(scope=ADMIN), None, NOW), Allowed)


def test_a_forbidden_model_reads_exactly_like_an_absent_one() -> None:
    secret = Need(scope=INFERENCE, model="secret")
    absent = refusal(decide(KEY, SHOWN, secret, None, NOW)).failure
    forbidden = refusal(decide(KEY, SHOWN, secret, ModelRecord(name="secret", pool="p"), NOW)).failure
    assert absent == forbidden
    assert (absent.code, absent.param) == ("model_not_found", "model")


def test_an_error_repeats_no_more_than_a_name_of_what_was_sent() -> None:
    answer = refusal(decide(KEY, SHOWN, Need(scope=INFERENCE, model="x" * 100_000), None, NOW))
    assert len(answer.failure.message) < 400


def test_the_list_of_models_is_that_of_the_key() -> None:
    models = [ModelRecord(name=name, pool="p") for name in ("org/a", "small", "secret")]
    assert [model.name for model in visible(KEY, models)] == ["org/a", "small"]


def test_a_key_without_limits_reserves_nothing() -> None:
    assert scopes_of(KEY) == ()
    scope = scopes_of(replace(KEY, requests_per_minute=60))[0]
    assert (scope.name, scope.requests_per_minute, scope.concurrency) == (f"key:{KEY.key_id}", 60, 0)


def test_unknown_scopes_are_named() -> None:
    assert unknown_scopes(["inference", "root", "admin", "god"]) == ["god", "root"]
