"""Rests between reads."""

from __future__ import annotations

from runtime.pace import BUSY, REST_S, Pace


def play(pace: Pace, rate: int, seconds: float, since: float) -> float:
    """Entries that come one by one; when it ended."""
    for number in range(int(rate * seconds)):
        pace.note(1, since + number / rate)
    return since + seconds


def test_a_reader_that_little_comes_to_never_rests() -> None:
    pace = Pace()
    play(pace, BUSY // 2, 3.0, 100.0)
    assert pace.rest == 0.0


def test_it_rests_under_load_and_no_more_when_the_load_is_gone() -> None:
    pace = Pace()
    until = play(pace, BUSY * 2, 1.0, 100.0)
    assert pace.rest == REST_S
    play(pace, BUSY // 2, 1.0, until)
    assert pace.rest == 0.0


def test_the_first_entries_after_a_silence_do_not_look_like_load() -> None:
    pace = Pace()
    pace.note(BUSY, 1000.0)
    assert pace.rest == 0.0
