"""A run reaches an engine only with every verdict signed, about itself, and none against it."""

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from base.crypto import KeyRing, Verifier, digest, new_ring_key
from base.ids import SystemRandom
from schemas.errors import Code, Failure, Refusal
from schemas.verdicts import EDITS, PASS, REFUSE, SKIP, Edit, Grant, Verdict
from tests.router_support import VERIFIER, MemoryLease, cleared_run, signed
from workers.router.clearance import Clearance, clear, edited


def judge(run: MemoryLease, verifier: Verifier = VERIFIER) -> Clearance:
    return clear(run.accepted, digest(run.body), run.verdicts, verifier)


def verdict(run: MemoryLease, family: str = "rules", **fields: object) -> Verdict:
    given: dict[str, object] = {"outcome": PASS, "policy": "1", "body_digest": run.accepted.body_digest, **fields}
    return Verdict(**{"run": run.run, "family": family, **given})  # type: ignore[arg-type]


def put(run: MemoryLease, family: str, stored: bytes | None) -> MemoryLease:
    others = {name: value for name, value in run.verdicts.items() if name != family}
    return replace(run, verdicts={**others, family: stored} if stored else others)


def test_a_run_that_everybody_passed_is_cleared_with_its_grant() -> None:
    assert judge(cleared_run()).grant.pool == "pool"


def _flip(stored: bytes) -> bytes:
    return stored[:-2] + bytes([stored[-2] ^ 1]) + stored[-1:]


FORGERIES: dict[str, Callable[[MemoryLease], MemoryLease]] = {
    "no authorization": lambda run: put(run, "authorization", None),
    "authorization skipped": lambda run: put(
        run, "authorization", signed("authorization", verdict(run, "authorization", outcome=SKIP))
    ),
    "authorization without grant": lambda run: put(
        run, "authorization", signed("authorization", verdict(run, "authorization"))
    ),
    "altered": lambda run: put(run, "rules", _flip(run.verdicts["rules"])),
    "unsigned": lambda run: put(run, "rules", run.verdicts["rules"].partition(b" ")[2]),
    "signed by another family": lambda run: put(run, "rules", signed("authorization", verdict(run))),
    "of another family": lambda run: put(run, "rules", signed("rules", verdict(run, "persons"))),
    "of another run": lambda run: put(run, "rules", cleared_run().verdicts["rules"]),
    "about another body": lambda run: put(run, "rules", signed("rules", verdict(run, body_digest="0" * 64))),
    "unknown outcome": lambda run: put(run, "rules", signed("rules", verdict(run, outcome="maybe"))),
    "a refusal": lambda run: put(run, "rules", signed("rules", verdict(run, outcome=REFUSE))),
    "another body": lambda run: replace(run, body=run.body + b" "),
    "an edit of another body": lambda run: put(
        run,
        "rules",
        signed(
            "rules",
            verdict(
                run,
                outcome=EDITS,
                edits=(Edit(digest="x", pointer="/model", start=0, end=1, replacement="", kind="email"),),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_does_not_hold_is_never_cleared(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        judge(FORGERIES[name](cleared_run()))
    assert caught.value.failure.code == Code.internal_error


def test_verdicts_of_another_ring_do_not_count() -> None:
    with pytest.raises(Refusal):
        judge(cleared_run(), Verifier(KeyRing([new_ring_key(SystemRandom(), "t1")])))


def test_a_stored_refusal_keeps_its_reason() -> None:
    run = cleared_run()
    failure = Failure(code=Code.content_policy_violation, message="no")
    with pytest.raises(Refusal) as caught:
        judge(put(run, "rules", signed("rules", verdict(run, outcome=REFUSE, failure=failure))))
    assert caught.value.failure == failure


@pytest.mark.parametrize(("policy", "passes"), [("open", True), ("closed", False), (None, False)])
def test_a_missing_guard_counts_as_authorization_said(policy: str | None, passes: bool) -> None:
    run = put(cleared_run(), "rules", None)
    grant = Grant(tenant="t", key_id="k", pool="pool", fail={"rules": policy} if policy else {})
    run = put(run, "authorization", signed("authorization", verdict(run, "authorization", grant=grant)))
    if passes:
        assert judge(run).edits == ()
        return
    with pytest.raises(Refusal) as caught:
        judge(run)
    assert caught.value.failure.code == Code.guardrail_unavailable


def test_edits_are_applied_before_anything_leaves() -> None:
    run = cleared_run(edits=[("/messages/0/content", 0, 2, "[EMAIL]")])
    body = orjson.loads(edited(run.body, judge(run).edits))
    assert body["messages"][0]["content"] == "[EMAIL]"


@pytest.mark.parametrize("place", [("/messages/9/content", 0, 1), ("/messages/0/content", 0, 99), ("/stream", 0, 1)])
def test_a_body_whose_edit_does_not_fit_never_leaves(place: tuple[str, int, int]) -> None:
    run = cleared_run(edits=[(*place, "x")])
    with pytest.raises(Refusal):
        edited(run.body, judge(run).edits)
