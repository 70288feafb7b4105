"""When an endpoint is left alone and how it comes back, with numbers only."""

from hypothesis import given
from hypothesis import strategies as st

from policy.breaker import NEW, Breaker, Limits, failed, probed, succeeded

LIMITS = Limits(failures=3, open_ms=1000, open_most_ms=2500, probe_ms=500)


def opened(now: int = 0, opens: int = 0) -> Breaker:
    """A breaker that has just opened for the (opens + 1)th time in a row."""
    breaker = Breaker(opens=opens, changed_ms=now)
    for _ in range(LIMITS.failures):
        breaker = failed(breaker, opens, now, LIMITS)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_starts_anew() -> None:
    breaker = failed(failed(NEW, 0, 1, LIMITS), 0, 2, LIMITS)
    assert breaker.closed
    breaker = succeeded(breaker, 0, 3, LIMITS)
    assert breaker.failures == 0
    assert opened(10).state(10) == "open"


def test_it_stays_open_longer_every_time_up_to_a_bound() -> None:
    assert [opened(0, opens).until_ms for opens in range(4)] == [1000, 2000, 2500, 2500]


def test_half_open_lets_one_probe_through_until_its_time_is_over() -> None:
    breaker = opened(0)
    assert not probed(breaker, 999, LIMITS)[0]
    granted, breaker = probed(breaker, 1000, LIMITS)
    assert granted and breaker.state(1000) == "half_open"
    assert not probed(breaker, 1499, LIMITS)[0]
    assert probed(breaker, 1500, LIMITS)[0]


def test_the_probe_decides() -> None:
    _, breaker = probed(opened(0), 1000, LIMITS)
    assert succeeded(breaker, 1, 1100, LIMITS).state(1100) == "closed"
    again = failed(breaker, 1, 1100, LIMITS)
    assert (again.state(1100), again.opens, again.until_ms, again.probe_ms) == ("open", 2, 3100, 0)


def test_calls_that_began_before_it_opened_change_nothing() -> None:
    breaker = opened(0)
    assert failed(breaker, 0, 1200, LIMITS) == breaker == succeeded(breaker, 0, 1200, LIMITS)
    closed = succeeded(breaker, 1, 1300, LIMITS)
    assert failed(closed, 0, 1400, LIMITS) == closed


def test_a_failure_while_it_is_open_does_not_make_it_longer() -> None:
    breaker = opened(0)
    assert failed(breaker, 1, 500, LIMITS) == breaker


def test_a_long_good_time_is_forgiveness() -> None:
    closed = succeeded(opened(0), 1, 1000, LIMITS)
    assert opened(6001).opens == 1 and closed.opens == 1
    assert failed(closed, 1, 6000, LIMITS).opens == 1
    assert failed(closed, 0, 6001, LIMITS) == Breaker(failures=1)


@given(steps=st.lists(st.tuples(st.sampled_from(("failed", "succeeded", "probed")), st.integers(0, 700)), max_size=40))
def test_at_most_one_probe_is_under_way_at_any_time(steps: list[tuple[str, int]]) -> None:
    breaker, now, probe_until = opened(0), 0, 0
    for step, pause in steps:
        now += pause
        if step == "probed":
            granted, breaker = probed(breaker, now, LIMITS)
            if granted and not breaker.closed:
                assert now >= probe_until
                probe_until = now + LIMITS.probe_ms
        else:
            breaker = (failed if step == "failed" else succeeded)(breaker, breaker.opens, now, LIMITS)
            probe_until = 0
        assert breaker.until_ms - now <= LIMITS.open_most_ms
