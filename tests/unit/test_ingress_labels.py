"""Labels of the door's counter: only models that exist, whatever names clients make up."""

from __future__ import annotations

import pytest

from ingress.routes.work import label_of
from schemas.errors import Code


@pytest.mark.parametrize("code", [Code.model_not_found, Code.invalid_api_key, Code.cancelled, Code.deadline_exceeded])
def test_a_name_that_nobody_has_looked_up_is_no_label(code: Code) -> None:
    assert label_of("made-up", code.value, 0) == ""


@pytest.mark.parametrize(("code", "status"), [("", 200), (Code.cancelled.value, 200), (Code.upstream_error.value, 502)])
def test_a_model_that_answered_or_failed_is_a_label(code: str, status: int) -> None:
    assert label_of("small", code, status) == "small"
