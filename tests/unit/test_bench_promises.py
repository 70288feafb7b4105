"""What scripts/promises judges: a promise that does not hold is said, one that holds is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from bench.hostile import ODD, REFUSED, Reply, Target
from bench.outage import Row as Outage
from bench.poison import Letter
from bench.poison import Row as Poison
from bench.rolling import Row as Rolled
from bench.rolling import table
from bench.trust import Row as Cost
from bench.windows import Others
from runtime.lifecycle import ORDER

MS = 1_000_000


def others(*ratios: float) -> Others:
    """Windows of which each second one is so much slower than the one before it."""
    return Others([[10 * MS] * 100 for _ in ratios], [[int(10 * ratio * MS)] * 100 for ratio in ratios])


def test_the_others_are_judged_by_the_median_of_their_pairs() -> None:
    assert others(1.0, 1.05, 3.0).broken() == []
    assert others(1.0, 1.2, 1.3).broken() == ["the p99 of the others became 1.20 times as long"]
    failed = others(1.0)
    failed.errors = {"503": 2}
    assert failed.broken() == ["requests failed: {'503': 2}"]
    assert others(1.0, 1.1).cells()[-1] == "1.05 (1.00..1.10)"


def test_poison_without_a_letter_or_with_too_many_starts_is_said() -> None:
    good = Letter(3, "why")
    assert Poison(others(1.0), 1, 1, [good]).broken() == []
    assert Poison(others(1.0), 1, 2, [good]).broken() == ["1 dead letters of 2"]
    for bad in (Letter(4, "why"), Letter(1, "")):
        assert len(Poison(others(1.0), 1, 1, [bad]).broken()) == 1


def test_a_restart_that_costs_a_stream_or_proves_nothing_is_said() -> None:
    good = Rolled("router", 200, others=10, ready=Counter({503: 5}), steps=("timer", *ORDER))
    assert good.broken() == []
    assert len(replace(good, failed=1, others_failed=1, code=1).broken()) == 3
    assert len(replace(good, others=0).broken()) == 1


def test_a_process_that_stops_in_another_order_or_keeps_its_readiness_is_said() -> None:
    good = Rolled("router", 200, others=10, ready=Counter({503: 5}), steps=ORDER)
    for ready in (Counter({503: 5, 200: 1}), Counter[int]()):
        assert "/readyz" in replace(good, ended_s=5.0, ready=ready).broken()[0]
    assert replace(good, ended_s=0.1, ready=Counter[int]()).broken() == []
    for steps in (ORDER[1:2] + ORDER[:1] + ORDER[2:], ORDER[:-1], ()):
        assert "another order" in replace(good, steps=steps).broken()[0]


def test_an_outage_that_is_told_late_or_lasts_is_said() -> None:
    assert Outage(5, told=[3.0], back_s=0.5).broken() == []
    assert len(Outage(5, told=[300.0], back_s=2.5).broken()) == 2
    assert Outage(5, back_s=0.5).broken() and Outage(5, told=[3.0], wrong=["x"], back_s=0.5).broken() == ["x"]


@pytest.mark.parametrize(
    ("statuses", "text", "legal", "said"),
    [
        ((400,), b"", False, ""),
        ((200,), b"", True, ""),
        ((200,), b"", False, "status 200"),
        ((500,), b"", True, "status 500"),
        ((400, 200), b"", True, "2 answers"),
        ((), b"", True, "0 answers"),
        ((400,), b'File "door.py"', True, "our code"),
    ],
)
def test_an_answer_to_a_hostile_request_is_judged(
    statuses: tuple[int, ...], text: bytes, legal: bool, said: str
) -> None:
    wrong = Reply(statuses, text).wrong(legal)
    assert wrong.startswith(said) and bool(wrong) == bool(said)


def test_hostile_requests_are_what_their_names_say() -> None:
    to = Target("127.0.0.1", 1, "key", "m")
    assert to.post(b"{}").endswith(b"\r\n\r\n{}") and b"host: door" in to.head()
    assert REFUSED["two lengths"](to).count(b"content-length") == 2 and b"host" not in ODD["no host"](to)


def test_the_cost_of_an_event_is_judged_and_that_of_a_frame_is_not() -> None:
    assert Cost("e", 1, 10.0, 9.0).broken() == [] and Cost("e", 1, 10.0, 10.1).broken() == ["e costs 20.1 us"]
    assert Cost("frame", 1, 99.0, 9.0, event=False).broken() == []
    assert table(("a", "b"), [("x", "long")]).splitlines()[1] == "x  long"
