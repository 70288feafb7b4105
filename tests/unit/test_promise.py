"""What a claim will bring is known before it is here, or it is not; and whether it came so."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from runtime.claims import Claim
from runtime.promise import foreseen, holds
from runtime.scripts import Answer
from schemas.envelope import Envelope
from schemas.outcomes import Delivery
from tests.engine_support import request
from tests.run_support import FAMILIES, answer

NOW = 1_700_000_000_999
RUN = "0-run"
ENVELOPE = Envelope(id=RUN, type="RequestAccepted", v=1, by="ingress", run=RUN, deadline_ms=60_000, data=Raw(b"{}"))
ASKED = Delivery(
    stream="s", entry=f"{NOW - 10}-3", envelope=ENVELOPE, event=request(RUN), fields={b"e": b"a", b"s": b"m"}, body=b"b"
)


def answers(asked: Delivery | None = ASKED, *missing: str) -> list[Answer]:
    """Of every family but these."""
    return [replace(answer(RUN, family), asked=asked) for family in FAMILIES if family not in missing]


def claimed(**changes: Any) -> Claim:
    """As the server claims the run."""
    fields = {f"v:{one.family}": one.stored for one in answers()}
    fields |= {"a": b"a", "as": b"m", "t:accepted": b"%d" % (NOW - 11), "deadline": b"1", "t:cleared": b"2"}
    fields |= changes.pop("fields", {})
    return Claim(**{"state": "ok", "epoch": 1, "left_ms": 59_000, "body": b"b", "fields": fields, **changes})


def test_a_claim_is_foreseen_from_what_its_families_answered_and_its_entry_brought() -> None:
    claim = foreseen(answers(), NOW)
    assert claim is not None and (claim.state, claim.epoch, claim.sequence) == ("ok", 1, 0)
    assert (claim.left_ms, claim.body) == (59_990, b"b") and claim.fields["t:accepted"] == b"%d" % (NOW - 10)
    assert claim.fields["v:rules"] == answers()[1].stored and (claim.fields["a"], claim.fields["as"]) == (b"a", b"m")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(answers(None), id="the entry is not at hand"),
        pytest.param(answers(replace(ASKED, body=b"")), id="its body is not at hand"),
        pytest.param(answers(ASKED, "persons"), id="a family answers elsewhere"),
        pytest.param([*answers()[:-1], replace(answers()[-1], stored=b"")], id="a family's answer never came"),
        pytest.param(answers(replace(ASKED, entry=f"{NOW - 60_000}-0")), id="its time is over"),
    ],
)
def test_a_claim_is_not_foreseen_where(given: list[Answer]) -> None:
    assert foreseen(given, NOW) is None


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(claimed(), id="as it was"),
        pytest.param(claimed(fields={"cancel": b"client"}), id="cancelled meanwhile"),
        pytest.param(claimed(left_ms=1), id="by another clock"),
    ],
)
def test_a_claim_holds_that_came(claim: Claim) -> None:
    promised = foreseen(answers(), NOW)
    assert promised is not None and holds(promised, claim)


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(Claim(state="gone"), id="gone"),
        pytest.param(claimed(epoch=2), id="owned before"),
        pytest.param(claimed(sequence=1), id="begun before"),
        pytest.param(claimed(body=b"c"), id="with another body"),
        pytest.param(claimed(fields={"v:rules": b"other"}), id="with another verdict"),
        pytest.param(claimed(fields={"v:models": b"more"}), id="with one more verdict"),
        pytest.param(claimed(fields={"a": b"other"}), id="with another acceptance"),
        pytest.param(claimed(fields={"t:accepted": b"%d" % (NOW + 1)}), id="accepted in another second"),
    ],
)
def test_a_claim_does_not_hold_that_came(claim: Claim) -> None:
    promised = foreseen(answers(), NOW)
    assert promised is not None and not holds(promised, claim)
