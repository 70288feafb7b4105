"""What becomes of a run when its last client leaves: whose word counts, and what a request may ask for."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from policy.disconnect import HEADER, OR_NOTHING, PATTERN, governing, narrowed, patience, stated
from schemas.errors import Failure

FROM_STRICT_TO_LOOSE = ("cancel", "grace:0.5", "grace:5", "grace:30", "finish")


def test_key_goes_before_model_and_model_before_server() -> None:
    assert governing("finish", "cancel", "grace:5") == "finish"
    assert governing("", "cancel", "grace:5") == "cancel"
    assert governing("", "", "grace:5") == "grace:5"


def test_run_goes_on_for_nobody_as_long_as_its_policy_says() -> None:
    assert [patience(policy) for policy in FROM_STRICT_TO_LOOSE] == [0, 0.5, 5, 30, math.inf]


@pytest.mark.parametrize(("strict", "loose"), list(itertools.combinations(FROM_STRICT_TO_LOOSE, 2)))
def test_request_may_ask_for_something_stricter_and_never_for_something_looser(strict: str, loose: str) -> None:
    assert narrowed(loose, strict) == strict
    refused = narrowed(strict, loose)
    assert isinstance(refused, Failure) and (refused.code, refused.param) == ("invalid_request", HEADER)
    assert loose in refused.message and strict in refused.message


@pytest.mark.parametrize("policy", FROM_STRICT_TO_LOOSE)
def test_no_wish_and_the_same_wish_change_nothing(policy: str) -> None:
    assert narrowed(policy, "") == narrowed(policy, policy) == policy


def test_pattern_takes_what_can_be_meant_and_nothing_else() -> None:
    assert all(re.search(PATTERN, policy) for policy in FROM_STRICT_TO_LOOSE)
    assert re.search(OR_NOTHING, "") and not re.search(PATTERN, "")
    for wrong in ("Cancel", "grace", "grace:", "grace:-1", "grace:1e9", "grace:1.2345", "finish now", "cancelled"):
        assert not re.search(OR_NOTHING, wrong)


@pytest.mark.parametrize("policy", ["later", "grace", "grace:-1", "finish "])
def test_a_wrong_policy_is_told_what_it_can_be(policy: str) -> None:
    with pytest.raises(ValueError, match="cancel, finish or grace:SECONDS"):
        stated(policy)
