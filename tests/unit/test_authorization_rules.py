"""What authorization decides, with values only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from policy.decision import Allowed, Refused
from schemas.ports import Reserved
from schemas.records import KeyRecord, ModelRecord
from schemas.routes import MODERATIONS_POOL
from tests.authorization_support import accepted
from workers.authorization import rules
from workers.authorization.settings import AuthorizationSettings

KEY = KeyRecord(key_id="00000000000000aa", tenant="acme", name="app", secret_mac="ab" * 32, mac_kid="k1", weight=3)
MODEL = ModelRecord(name="small", pool="gpu-a")
RUN = structs.replace(accepted("run"), key_id=KEY.key_id, secret_mac=KEY.secret_mac, mac_kid="k1")


@pytest.mark.parametrize(
    ("key", "asked", "given"),
    [
        ("interactive", "interactive", "interactive"),
        ("interactive", "batch", "batch"),
        ("batch", "interactive", "batch"),
        ("batch", "batch", "batch"),
        ("interactive", "anything", "interactive"),
    ],
)
def test_batch_may_be_asked_for_and_interactive_cannot_be_won(key: str, asked: str, given: str) -> None:
    assert rules.lane(key, asked) == given


@pytest.mark.parametrize(
    ("key", "asked", "given"), [(0, None, 0), (3, None, 3), (0, 10, 0), (3, 10, 3), (3, 1, 1), (0, -10, -10)]
)
def test_a_priority_can_be_given_up_and_not_won(key: int, asked: int | None, given: int) -> None:
    assert rules.priority(key, asked) == given


def test_a_grant_names_tenant_pool_lane_weight_and_what_was_reserved() -> None:
    key = replace(KEY, requests_per_minute=60, lane="batch")
    reserved = Reserved(granted=True, limit_requests=60, remaining_requests=59, reset_requests_ms=1000)
    given = rules.grant(RUN, Allowed(key=key, model=MODEL), reserved, {"rules": "open"})
    assert (given.tenant, given.key_id, given.pool, given.lane, given.weight) == (
        "acme",
        KEY.key_id,
        "gpu-a",
        "batch",
        3,
    )
    assert given.scopes == (f"key:{KEY.key_id}",)
    assert (given.limit_requests, given.remaining_requests, given.reset_requests_ms) == (60, 59, 1000)
    assert given.fail == {"rules": "open"}


def test_a_key_without_limits_has_nothing_for_the_ledger_to_settle() -> None:
    given = rules.grant(RUN, Allowed(key=KEY, model=MODEL), Reserved(granted=True), {})
    assert given.scopes == ()
    assert given.limit_requests == -1


@pytest.mark.parametrize(
    ("key", "model", "wish", "given"),
    [
        ("", "", "", "grace:30"),
        ("", "cancel", "", "cancel"),
        ("finish", "cancel", "", "finish"),
        ("finish", "cancel", "grace:5", "grace:5"),
        ("", "", "cancel", "cancel"),
    ],
)
def test_a_grant_says_what_happens_when_the_client_leaves(key: str, model: str, wish: str, given: str) -> None:
    run = structs.replace(RUN, on_disconnect="grace:30", disconnect_wish=wish)
    record, known = replace(KEY, on_disconnect=key), replace(MODEL, on_disconnect=model)
    judged = rules.judge(run, record, known, 0)
    assert isinstance(judged, Allowed)
    assert rules.grant(run, judged, Reserved(granted=True), {}).on_disconnect == given


def test_a_request_that_asks_for_a_looser_policy_than_it_has_is_refused_before_it_reserves() -> None:
    run = structs.replace(RUN, on_disconnect="finish", disconnect_wish="grace:10")
    judged = rules.judge(run, replace(KEY, on_disconnect="cancel"), MODEL, 0)
    assert isinstance(judged, Refused) and judged.key is not None
    assert (judged.failure.code, judged.failure.param) == ("invalid_request", "x-headrace-on-disconnect")


def test_the_fail_policy_names_every_guard_family_of_the_run_and_never_authorization() -> None:
    run = structs.replace(RUN, families=("authorization", "rules", "persons"))
    found = rules.fail_policy(run, lambda model, key, family: "open" if family == "persons" else "closed")
    assert found == {"rules": "closed", "persons": "open"}


def test_a_rate_limit_says_its_figure_and_when_to_come_back() -> None:
    reserved = Reserved(granted=False, limit="requests_per_minute", limit_requests=60, retry_after_ms=12_340)
    failure = rules.over_limit(KEY, reserved)
    assert (failure.code, failure.retry_after_ms) == ("rate_limit_exceeded", 12_340)
    assert "60 requests per minute" in failure.message
    assert "12.3 s" in failure.message


def test_a_concurrency_limit_says_how_many_may_be_in_flight() -> None:
    failure = rules.over_limit(
        replace(KEY, concurrency=4), Reserved(granted=False, limit="concurrency", retry_after_ms=1000)
    )
    assert "4 requests in flight" in failure.message
    assert failure.retry_after_ms is None  # nobody knows: the door names a wait, each client its own


def test_the_policy_version_changes_with_the_settings_only() -> None:
    first = AuthorizationSettings()
    assert first.policy == AuthorizationSettings().policy
    assert first.policy != AuthorizationSettings(reservation_grace_ms=1).policy


def test_guards_fail_closed_unless_told_otherwise() -> None:
    assert set(rules.fail_policy(RUN, rules.closed).values()) <= {"closed"}


def test_a_moderation_needs_a_proven_key_with_the_scope_but_no_model() -> None:
    key = replace(KEY, models=("other",))
    run = structs.replace(RUN, route="/v1/moderations", model="moderations")
    judged = rules.judge(run, key, None, 0)
    assert isinstance(judged, Allowed)
    assert rules.grant(run, judged, Reserved(granted=True), {}).pool == MODERATIONS_POOL
    for wrong in (None, replace(key, scopes=("admin",)), replace(key, revoked_ms=1)):
        assert isinstance(rules.judge(run, wrong, None, 0), Refused)
    assert isinstance(rules.judge(structs.replace(run, route="/v1/chat/completions"), key, None, 0), Refused)


@pytest.mark.parametrize(
    ("route", "expected"),
    [("/v1/chat/completions", 256), ("/v1/completions", 256), ("/v1/embeddings", 0), ("/v1/moderations", 0)],
)
def test_only_a_generated_answer_is_expected_to_have_tokens(route: str, expected: int) -> None:
    assert rules.expected_tokens(structs.replace(RUN, route=route, prompt_tokens=10)) == 10 + expected
