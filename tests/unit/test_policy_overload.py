"""How long a new request would wait, learnt from numbers alone: queues played by a clock that is a number."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.overload import GUESS_S, LEVELS, LONGEST_S, SHORTEST_S, Line, come_back_s, expected_stay, is_served


@dataclass
class Play:
    """One line before so many places, each of which serves one in service_s; first come, first served. allowed_s: who
    would be here longer is refused."""

    places: int
    service_s: float
    allowed_s: float
    line: Line = field(default_factory=Line)
    refused: list[float] = field(default_factory=list)
    stays: list[tuple[float, float]] = field(default_factory=list)
    _ends: list[tuple[float, float]] = field(default_factory=list)
    _free: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = [0.0] * self.places

    def arrive(self, at: float) -> None:
        self.until(at)
        self.line.join(at)
        if self.line.stay(at) > self.allowed_s:
            self.refused.append(at)
            self.line.leave()
            return
        end = max(at, heapq.heappop(self._free)) + self.service_s
        heapq.heappush(self._free, end)
        heapq.heappush(self._ends, (end, at))

    def until(self, at: float) -> None:
        """Everybody leaves who is answered by then."""
        while self._ends and self._ends[0][0] <= at:
            end, since = heapq.heappop(self._ends)
            self.line.serve(end - since, end)
            self.line.leave()
            self.stays.append((end, end - since))


def steady(rate: float, begin: float, end: float) -> Iterator[float]:
    return (begin + number / rate for number in range(int((end - begin) * rate)))


def test_a_line_in_which_nobody_was_served_tells_nothing() -> None:
    line = Line()
    for number in range(5_000):
        line.join(number / 1_000)
    assert line.stay(1e6) == 0.0


def test_the_stay_in_a_full_line_is_its_length_over_what_is_served() -> None:
    play = Play(places=16, service_s=0.05, allowed_s=1e9)
    for at in steady(640, 0, 20):
        play.arrive(at)
    assert play.line.stay(20.0) == pytest.approx(20, rel=0.1)  # 6,400 who wait for 320 a second


@pytest.mark.parametrize(("places", "service_s"), [(16, 0.05), (16, 5.0), (1, 10.0), (200, 3.0)])
@pytest.mark.parametrize("load", [1.2, 2.0, 3.0])
def test_at_three_times_the_capacity_nobody_who_is_let_in_misses_the_deadline(
    places: int, service_s: float, load: float
) -> None:
    deadline, capacity = max(4.0, service_s * 60), places / service_s
    play = Play(places, service_s, 0.75 * deadline)
    for at in steady(load * capacity, 0, 10 * deadline):
        play.arrive(at)
    play.until(1e9)
    assert max(stay for _, stay in play.stays) <= deadline
    assert len(play.refused) > (0.3 if load > 1.5 else 0.02) * len(play.stays)
    assert len(play.stays) / play.stays[-1][0] > 0.9 * capacity, "places stood idle while clients were refused"


@pytest.mark.parametrize(("places", "service_s", "deadline"), [(1_000, 10.0, 60.0), (64, 0.5, 30.0), (16, 0.05, 60.0)])
def test_a_burst_that_drains_in_time_is_taken_in_whole(places: int, service_s: float, deadline: float) -> None:
    capacity = places / service_s
    play = Play(places, service_s, 0.75 * deadline)
    for at in steady(capacity / 10, 0, 120):
        play.arrive(at)  # the measure knows a tenth of what could be served
    for number in range(int(capacity * deadline * 0.5)):
        play.arrive(120 + number / (100 * capacity))
    for at in steady(capacity / 10, 121, 240):
        play.arrive(at)
    assert not play.refused


def test_a_calm_line_is_never_refused_however_long_its_answers_take() -> None:
    play = Play(places=1_000, service_s=100.0, allowed_s=150.0)
    for at in steady(5, 0, 1_000):
        play.arrive(at)
    assert not play.refused


def test_a_line_that_got_slower_is_told_by_what_is_served_now() -> None:
    play = Play(places=16, service_s=0.05, allowed_s=1e9)
    for at in steady(330, 0, 100):
        play.arrive(at)
    play.service_s = 0.5
    for at in steady(33, 100, 220):
        play.arrive(at)
    assert play.line.stay(220) == pytest.approx(play.line.live / 32, rel=0.15)


@pytest.mark.parametrize("deadline", [4.0, 10.0])
def test_when_engines_get_slower_under_overload_those_who_come_three_deadlines_later_keep_theirs(
    deadline: float,
) -> None:
    play = Play(places=16, service_s=0.05, allowed_s=0.75 * deadline)
    for at in steady(960, 0, 40):
        play.arrive(at)
    play.service_s = 0.1
    for at in steady(960, 40, 40 + 20 * deadline):
        play.arrive(at)
    play.until(1e9)
    late = [end - stay - 40 for end, stay in play.stays if stay > deadline]
    assert max(late) < 3 * deadline


def test_an_outage_is_not_taken_for_the_pace() -> None:
    line = Line()
    for _ in range(200):
        line.join(0.0)
    for at in (4.0, 4.2, 4.4, 4.6, 4.8, 5.0, 5.2, 5.4, 5.6):  # then nobody is served for five seconds
        line.serve(4.0, at)
        line.leave()
    assert line.stay(10.6) == pytest.approx(191 / 5, rel=0.01)
    for at in (10.6, 10.8):
        line.serve(10.0, at)
        line.leave()
    assert line.stay(10.8) == pytest.approx(189 / 5, rel=0.01)


def test_a_pause_as_answers_of_many_lengths_have_is_no_outage() -> None:
    line = Line()
    for _ in range(100):
        line.join(0.0)
    for at in (2, 4, 5, 6, 7, 8, 14, 15, 16, 17, 18, 20):
        line.serve(2.0, float(at))
        line.leave()
    assert line.stay(20.0) == pytest.approx(88 * 18 / 11)


def test_whoever_comes_seldom_is_not_refused_for_anothers_backlog() -> None:
    heavy, light, everybody = Line(), Line(), Line()
    for line in (heavy, everybody):
        for _ in range(3_000):
            line.join(0.0)
        for number in range(101):
            line.serve(5.0, number / 10)
            line.leave()
    for line in (light, everybody):
        line.join(9.0)
    assert expected_stay(heavy, everybody, 2, 10.0) == pytest.approx(290, rel=0.02)
    assert expected_stay(light, everybody, 2, 10.0) == 0.0


def test_of_many_owners_without_a_measure_of_their_own_those_with_the_most_are_refused() -> None:
    everybody, greedy, modest = Line(), Line(), Line()
    for _ in range(1_000):
        everybody.join(0.0)
    for number in range(21):
        everybody.serve(1.0, number / 2)
        everybody.leave()
    for _ in range(15):
        greedy.join(0.0)
    for _ in range(5):
        modest.join(0.0)
    assert expected_stay(greedy, everybody, 100, 10.0) == pytest.approx(490, rel=0.1)
    assert expected_stay(modest, everybody, 100, 10.0) == 0.0


@given(st.lists(st.sampled_from(["join", "serve", "leave"]), max_size=300), st.floats(0.01, 10))
def test_no_order_of_events_breaks_the_measure(events: list[str], step: float) -> None:
    line, now = Line(), 0.0
    for event in events:
        now += step
        if event == "join":
            line.join(now)
        elif line.live:
            if event == "serve":
                line.serve(step, now)
            line.leave()
        assert line.live >= 0 and line.stay(now) >= 0.0


def test_levels_are_near_enough_for_any_backlog() -> None:
    assert all(above <= 1.5 * level or level == 1 for level, above in itertools.pairwise(LEVELS))


@pytest.mark.parametrize(
    ("stay", "allowed", "least"),
    [
        (0.0, 30.0, GUESS_S),
        (40.0, 30.0, 10.0),
        (40.0, 39.0, 4.0),
        (0.01, 0.009, SHORTEST_S),
        (1e6, 1.0, LONGEST_S),
        (100.0, float("inf"), 10.0),
    ],
)
def test_a_refused_client_comes_back_when_there_may_be_room_and_not_with_all_the_others(
    stay: float, allowed: float, least: float
) -> None:
    assert come_back_s(stay, allowed, 0.0) == pytest.approx(least)
    assert come_back_s(stay, allowed, 1.0) == pytest.approx(2 * least)
    assert come_back_s(stay, allowed, 1.0) <= 60, "more than the official clients obey"


def test_what_had_no_turn_says_nothing_of_the_pace() -> None:
    assert is_served("upstream_error") and is_served("upstream_interrupted")
    assert not any(is_served(code) for code in ("deadline_exceeded", "cancelled", "rate_limit_exceeded", "overloaded"))
