"""What the audit makes of an ended run, and what of it it believes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from policy.prices import Price
from schemas.errors import STATUS, Code, DecodeError, Failure, SignatureError
from schemas.events import (
    Attempt,
    Choice,
    FactTimes,
    RequestCancelled,
    RequestCompleted,
    RequestFailed,
    Seen,
    Usage,
)
from schemas.records import RequestRecord
from tests.audit_support import (
    CANARY,
    PUBLISHERS,
    STRANGER,
    VERIFIER,
    End,
    accepted,
    blocked,
    completed,
    run_id,
    verdicts,
)
from workers.audit import rules
from workers.audit.opening import Opened, open_fact, open_holder

PRICES = (Price(model="sm*", prompt=150_000, completion=600_000, cached=75_000),)


def opened(end: End) -> Opened:
    return open_fact(end.delivery(), VERIFIER, PUBLISHERS)


def row(end: End, prices: Sequence[Price] = PRICES) -> RequestRecord:
    return rules.request_row(opened(end), prices)


def test_a_completed_run_is_recorded_with_everything_that_is_known_of_it() -> None:
    assert row(End()) == RequestRecord(
        run=run_id(),
        tenant="acme",
        key_id="00000000000000aa",
        route="/v1/chat/completions",
        model="small",
        endpoint="e1",
        stream=True,
        status=200,
        outcome="completed",
        code="",
        prompt_tokens=1000,
        completion_tokens=500,
        cached_tokens=200,
        estimated=False,
        cost_micros=120 + 15 + 300,
        events=7,
        ttft_ms=50,
        duration_ms=200,
        accepted_ms=10_000,
        cleared_ms=10_005,
        claimed_ms=10_006,
        first_ms=10_050,
        ended_ms=10_200,
        attempt=1,
        client_request_id="mine-1",
        verdicts=[
            {
                "family": "authorization",
                "outcome": "pass",
                "policy": "p1",
                "took_us": 0,
                "found": {},
                "edits": {},
                "pool": "small",
                "lane": "interactive",
            },
            {
                "family": "rules",
                "outcome": "edits",
                "policy": "p1",
                "took_us": 90,
                "found": {"email": 1},
                "edits": {"email": 1},
            },
        ],
        attempts=[{"endpoint": "e1", "started_ms": 0, "ended_ms": 190, "outcome": "ok", "status": 200}],
        finish_reason="stop",
        unverified=(),
    )


def test_a_model_without_a_price_costs_nothing() -> None:
    assert row(End(), prices=()).cost_micros == 0


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_status(code: Code) -> None:
    fact = RequestFailed(run=run_id(), failure=Failure(code=code, message="m"))
    assert row(End(fact=fact, by="sweeper")).status == STATUS[code]


def test_an_unknown_code_is_our_fault() -> None:
    fact = RequestFailed(run=run_id(), failure=Failure(code="from_the_future", message="m"))
    found = row(End(fact=fact))
    assert (found.status, found.code) == (500, "from_the_future")


def test_an_engines_own_status_is_recorded_as_passed_on() -> None:
    fact = RequestFailed(run=run_id(), failure=Failure(code=Code.upstream_error, message="m", status=418))
    assert row(End(fact=fact)).status == 418


def test_a_cut_run_is_billed_for_what_was_generated_and_marked_estimated() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=3, estimated=True)
    found = row(End(fact=RequestCancelled(run=run_id(), by="client", usage=usage, endpoint="e1")))
    assert (found.outcome, found.status, found.code, found.estimated) == ("cancelled", 499, "cancelled", True)
    assert (found.prompt_tokens, found.completion_tokens, found.cost_micros) == (10, 3, 4)


def test_a_refused_run_names_its_code_and_no_engine() -> None:
    found = row(End(fact=blocked(run_id()), by="rules"))
    assert (found.outcome, found.status, found.code) == ("refused", 400, "content_policy_violation")
    assert (found.endpoint, found.cost_micros, found.attempts) == ("", 0, [])


def test_no_text_of_anybody_gets_into_a_row() -> None:
    fact, request = rules.rows(opened(End(fact=blocked(run_id()), by="rules")), PRICES)
    assert CANARY.encode() not in msgspec.json.encode([fact, request])


def test_names_that_others_chose_are_cut_and_freed_of_nul() -> None:
    found = row(End(accepted=accepted(run_id(), model="a\x00b" + "x" * 5000)))
    assert "\x00" not in found.model and len(found.model) <= 256


def test_counts_beyond_all_reason_fit_their_columns() -> None:
    usage = Usage(prompt_tokens=10**30, completion_tokens=-5, cached_tokens=10**30)
    found = row(End(fact=msgspec.structs.replace(completed(run_id()), usage=usage, events=10**30)))
    assert max(found.prompt_tokens, found.cost_micros, found.events) < 2**63
    assert found.completion_tokens == 0


def test_time_to_first_token_of_a_unary_answer_comes_from_the_router() -> None:
    times = msgspec.json.encode(FactTimes(accepted=10_000, claimed=10_006, ended=10_200))
    assert row(End(times=times)).ttft_ms == 6 + 44


def test_a_run_without_times_is_recorded_by_the_facts_own_time() -> None:
    found = row(End(times=b"not json"))
    assert (found.unverified, found.ended_ms, found.duration_ms, found.ttft_ms) == (("times",), 10_200, 0, 0)


def test_a_fact_with_a_false_signature_is_not_believed() -> None:
    with pytest.raises(SignatureError):
        opened(End(rings={"router": STRANGER}))


def test_a_fact_from_a_room_that_may_not_say_it_is_not_believed() -> None:
    with pytest.raises(SignatureError):
        opened(End(fact=completed(run_id()), by="rules"))
    with pytest.raises(SignatureError):
        opened(End(by="provisioner"))


def test_a_fact_that_is_not_an_end_is_not_believed() -> None:
    end = End()
    e = end.fields()[b"a"]
    fields = end.fields() | {b"e": e, b"s": end.signer("ingress").sign("facts", e)}
    with pytest.raises((SignatureError, DecodeError)):
        open_fact(end.delivery(fields), VERIFIER, PUBLISHERS)


def test_a_fact_signed_for_another_stream_is_not_believed() -> None:
    end = End()
    fields = end.fields()
    fields[b"s"] = end.signer("router").sign("requests", fields[b"e"])
    with pytest.raises(SignatureError):
        open_fact(end.delivery(fields), VERIFIER, PUBLISHERS)


def test_an_acceptance_the_door_did_not_sign_is_left_out_and_named() -> None:
    found = row(End(rings={"ingress": STRANGER}))
    assert found.unverified == ("acceptance",)
    assert (found.route, found.client_request_id, found.stream) == ("", "", False)
    assert (found.tenant, found.model) == ("acme", "small")


def test_an_acceptance_of_another_run_is_left_out_and_named() -> None:
    assert row(End(accepted=accepted(run_id(2)))).unverified == ("acceptance",)


def test_an_unproven_authorization_names_no_tenant() -> None:
    found = row(End(rings={"authorization": STRANGER}))
    assert (found.tenant, found.unverified) == ("", ("authorization",))


@pytest.mark.parametrize("change", [{"run": run_id(2)}, {"body_digest": "0" * 64}])
def test_a_verdict_about_another_run_or_body_is_left_out(change: dict[str, str]) -> None:
    said = verdicts(run_id())
    said["rules"] = msgspec.structs.replace(said["rules"], **change)
    found = row(End(verdicts=said))
    assert found.unverified == ("rules",)
    assert [item["family"] for item in found.verdicts] == ["authorization"]  # type: ignore[attr-defined]


def test_a_verdict_of_one_family_does_not_pass_for_anothers() -> None:
    said = verdicts(run_id())
    said["persons"] = said["rules"]
    assert row(End(verdicts=said)).unverified == ("persons",)


def test_a_fact_without_its_companions_is_still_recorded() -> None:
    end = End()
    fields = {name: value for name, value in end.fields().items() if name in (b"e", b"s")}
    found = rules.request_row(open_fact(end.delivery(fields), VERIFIER, PUBLISHERS), PRICES)
    assert (found.run, found.outcome, found.unverified) == (run_id(), "completed", ("acceptance", "times"))


def held(end: End) -> rules.Settlement | None:
    return rules.settlement(open_holder(end.delivery(), VERIFIER, PUBLISHERS), None)


def test_what_was_reserved_is_given_back() -> None:
    assert held(End()) == rules.Settlement(tenant="acme", run=run_id(), scopes=("key:00000000000000aa",))


def test_nothing_is_given_back_on_an_unproven_word() -> None:
    assert held(End(rings={"authorization": STRANGER})) is None
    assert held(End(verdicts=verdicts(run_id(2)))) is None


def test_nothing_is_given_back_on_a_false_fact() -> None:
    with pytest.raises(SignatureError):
        held(End(rings={"router": STRANGER}))


def test_what_an_attempt_was_chosen_from_is_recorded() -> None:
    seen = Seen(endpoint="e1", state="fit", in_use=2, slots=8, ttft_ms=30)
    attempt = Attempt(
        endpoint="e1",
        started_ms=0,
        ended_ms=1,
        outcome="ok",
        why=Choice(pool="p", strategy="cost", of=1, seen=(seen,) * 40),
    )
    attempts = row(End(fact=msgspec.structs.replace(completed(run_id()), attempts=(attempt,)))).attempts
    assert isinstance(attempts, list)
    (recorded,) = attempts
    assert (recorded["why"]["strategy"], recorded["why"]["seen"][0]["in_use"]) == ("cost", 2)
    assert len(recorded["why"]["seen"]) == 16


def test_facts_of_one_run_differ_by_kind_and_attempt() -> None:
    first, _ = rules.rows(opened(End(attempt=1)), ())
    second, _ = rules.rows(opened(End(attempt=2)), ())
    assert (first.kind, first.attempt, second.attempt) == (RequestCompleted.__name__, 1, 2)
