"""The house under a thousand schedules of faults, in virtual time; scripts/simulate plays any number of others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.play import play
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.steps import (
    DOOR_CALLS,
    WORKER_CALLS,
    Advance,
    Cancel,
    Leave,
    Publish,
    Repeat,
    Schedule,
    Step,
    Trap,
    compose,
)
from tests.simulation.world import House

_SCHEDULES = 1000
_WITHIN = 200  # of them, until a planted bug is found
_RARE = {"release", "mark"}  # made in one schedule of a hundred
_REPLAY = """
import random
from tests.simulation.play import play
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.steps import DOOR_CALLS, WORKER_CALLS, compose
print(*[play(compose(random.Random(seed).randint)).digest for seed in (7, 16, 220, 253)])
"""


def violations(seed: int) -> list[str]:
    """What the schedule with that number breaks: scripts/simulate --seed."""
    return [f"seed {seed}: {line}" for line in play(compose(random.Random(seed).randint)).violations]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_fails_the_promises_hold() -> None:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        assert list(chain.from_iterable(pool.map(violations, range(_SCHEDULES), chunksize=25))) == []


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


def test_whoever_hears_nothing_of_his_repeat_is_not_counted_as_a_watcher() -> None:
    keyed = Publish(0, 0, True, "good", 20, 500, "", once=1)
    told: list[str] = []
    second: list[Step] = [keyed, Advance(300), Cancel(0, 0), Advance(300), Repeat(0, 0, "cancel"), Advance(600)]
    lost: list[Step] = [Trap(1, "accept_once", 1, "lose_reply", True), Repeat(1, 0), Advance(100), Leave(0)]
    steps = (*second, *lost, Leave(0), Advance(12_000))
    assert play(Schedule(House(1, "cancel"), steps), tell=told.append).violations == ()
    ends = [float(line.split()[0]) for line in told if line.endswith("scripts.end ok")]
    assert len(ends) == 2 and ends[1] < 2.0  # it takes 10 s by itself


def test_a_seed_replays_exactly_in_another_process() -> None:
    def replay(hashes: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": "."}
        done = subprocess.run(
            [sys.executable, "-c", _REPLAY], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    first = replay("1")
    assert len(first.split()) == 4 and first == replay("2")


def test_every_call_that_is_struck_at_is_made() -> None:
    told: list[str] = []
    for schedule in (*REGRESSIONS.values(), *(compose(random.Random(seed).randint) for seed in range(40))):
        play(schedule, tell=told.append)
    made = {line.split()[2].rpartition(".")[2] for line in told}
    assert {*DOOR_CALLS, *WORKER_CALLS} - made <= _RARE


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    bugs = MUTANTS[name].bugs
    random_ones = (compose(random.Random(seed).randint) for seed in range(_WITHIN))
    assert any(play(schedule, bugs).violations for schedule in chain(REGRESSIONS.values(), random_ones))
