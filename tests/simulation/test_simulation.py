"""The house under a thousand schedules of faults, in virtual time; scripts/simulate plays any number of others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.simulation.mutants import MUTANTS
from tests.simulation.play import play
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.steps import Schedule, compose

_WITHIN = 200  # schedules
_REPLAY = """
import random
from tests.simulation.play import play
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.steps import compose
print(*[play(compose(random.Random(seed).randint)).digest for seed in (7, 16, 220, 253)])
"""


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """What compose makes of Hypothesis' choices."""
    return compose(lambda low, high: draw(st.integers(low, high)))


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(
    max_examples=1000,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(schedules())
def test_whatever_fails_the_promises_hold(schedule: Schedule) -> None:
    assert play(schedule).violations == ()


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_once_broke_a_promise_or_nearly_does_keeps_it(name: str) -> None:
    assert play(REGRESSIONS[name]).violations == ()


@pytest.mark.parametrize(
    ("name", "what", "times"),
    [
        ("a repeat comes while the run goes on, and when it has ended", "replays", 3),
        ("a repeat comes when Redis has forgotten everything", "replays", 2),
        ("another request comes under a key that is taken", "keys reused", 2),
        ("an engine breaks off, and another goes on", "continuations", 1),
        ("a router dies in an answer that another goes on with", "continuations", 1),
    ],
)
def test_a_schedule_reaches_what_it_is_for(name: str, what: str, times: int) -> None:
    assert play(REGRESSIONS[name]).counts[what] == times


def test_a_seed_replays_exactly_in_another_process() -> None:
    def replay(hashes: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": "."}
        done = subprocess.run(
            [sys.executable, "-c", _REPLAY], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    first = replay("1")
    assert len(first.split()) == 4 and first == replay("2")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    bugs = MUTANTS[name].bugs
    random_ones = (compose(random.Random(seed).randint) for seed in range(_WITHIN))
    assert any(play(schedule, bugs).violations for schedule in chain(REGRESSIONS.values(), random_ones))
