"""What becomes of an overdue run: the whole table of `judge`."""

from __future__ import annotations

import pytest

from runtime.runs import cut_short
from runtime.sweeper import Drop, Fail, Fill, Judgement, judge
from schemas import envelope as wire
from schemas.errors import Failure
from schemas.verdicts import PASS, Grant, Verdict, seal_verdict
from tests.engine_support import request, seals

NOW = 1_000_000


def _fields(
    answered: str, *, deadline: int = NOW + 1, state: str = "checking", fail: dict[str, str] | None = None
) -> dict[str, bytes]:
    """A run's hash; `answered` families have passed."""
    grant = Grant(tenant="t", key_id="k", pool="p", fail=fail or {})
    fields = {
        "state": state.encode(),
        "families": b"authorization rules persons",
        "deadline": str(deadline).encode(),
        **{f"o:{family}": b"pass" for family in answered.split()},
    }
    if "authorization" in answered:
        said = Verdict(run="r", family="authorization", outcome=PASS, policy="p", body_digest="d", grant=grant)
        fields["v:authorization"] = seal_verdict(seals("authorization").signer, said)
    return fields


def _code(judgement: Judgement) -> str:
    assert isinstance(judgement, Fail)
    assert judgement.failure.retry_after_ms is None and judgement.failure.should_retry  # the door spreads the wait
    assert "." in judgement.failure.message
    return judgement.failure.code


def test_run_without_state_is_dropped() -> None:
    assert judge({}, NOW) == Drop()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_run_that_was_cleared_has_missed_its_deadline(state: str) -> None:
    assert _code(judge(_fields("authorization rules persons", state=state), NOW)) == "deadline_exceeded"


def test_checks_fail_when_the_runs_own_deadline_is_over() -> None:
    assert (
        _code(judge(_fields("authorization rules", deadline=NOW, fail={"persons": "open"}), NOW)) == "deadline_exceeded"
    )


def test_nothing_is_filled_in_for_authorization() -> None:
    assert _code(judge(_fields("rules persons"), NOW)) == "deadline_exceeded"


@pytest.mark.parametrize(
    ("answered", "fail", "families"),
    [
        ("authorization rules", {"persons": "open"}, ("persons",)),
        ("authorization", {"persons": "open", "rules": "open"}, ("rules", "persons")),
        ("authorization rules persons", {}, ()),
    ],
)
def test_open_families_are_filled_in(answered: str, fail: dict[str, str], families: tuple[str, ...]) -> None:
    assert judge(_fields(answered, fail=fail), NOW) == Fill(families)


@pytest.mark.parametrize("fail", [{}, {"persons": "closed"}, {"persons": "nonsense"}, {"rules": "open"}])
def test_whatever_is_not_open_is_closed(fail: dict[str, str]) -> None:
    judgement = judge(_fields("authorization rules", fail=fail), NOW)
    assert _code(judgement) == "guardrail_unavailable"
    assert isinstance(judgement, Fail) and "persons" in judgement.failure.message


def test_unreadable_grant_means_closed() -> None:
    fields = {**_fields("authorization rules", fail={"persons": "open"}), "v:authorization": b"t1:00 junk"}
    assert _code(judge(fields, NOW)) == "guardrail_unavailable"


# --- what is billed when somebody else than its owner ends a run ------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "said", "billed"),
    [("9", "5", 5), ("9", "0", 0), ("9", None, 6), ("2", None, 0)],  # None: an older owner did not count
)
def test_cut_run_is_billed_for_what_carried_text_and_never_for_more(
    sequence: str, said: str | None, billed: int
) -> None:
    accepted = wire.encode(request("r", prompt_tokens=7), id="r", by="ingress", run="r")
    counted = {} if said is None else {"said": said.encode()}
    fact = cut_short("r", {"a": accepted, "seq": sequence.encode(), **counted}, Failure(code="c", message="m."))
    assert fact.usage is not None and fact.usage.estimated and fact.usage.prompt_tokens == 7
    assert (fact.usage.completion_tokens, fact.events) == (billed, int(sequence) + 1)
