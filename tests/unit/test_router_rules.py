"""The router's decisions, with values only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.prices import Price
from providers.errors import (
    BadResponse,
    Broken,
    ConnectFailed,
    EngineError,
    FirstByteTimeout,
    IdleTimeout,
    TotalTimeout,
    UpstreamFault,
)
from schemas.errors import Code, status_of
from schemas.verdicts import Grant, span
from tests.router_support import endpoint
from workers.router.rules import (
    RetryWindow,
    Seat,
    frame_gap,
    judge,
    price_of_endpoint,
    public_headers,
    share_of,
    speaks_against,
)


@pytest.mark.parametrize(
    ("fault", "code", "elsewhere"),
    [
        (ConnectFailed("x"), Code.upstream_error, True),
        (FirstByteTimeout("x"), Code.upstream_timeout, True),
        (IdleTimeout("x"), Code.upstream_timeout, True),
        (TotalTimeout("x"), Code.deadline_exceeded, False),
        (Broken("x"), Code.upstream_error, True),
        (BadResponse("x"), Code.upstream_error, True),
        (EngineError(400, "bad"), Code.invalid_request, False),
        (EngineError(413, "big"), Code.invalid_request, False),
        (EngineError(422, "bad"), Code.invalid_request, False),
        (EngineError(400, "long", code="context_length_exceeded"), Code.context_length_exceeded, False),
        (EngineError(401, "no"), Code.upstream_error, True),
        (EngineError(403, "no"), Code.upstream_error, True),
        (EngineError(404, "no"), Code.upstream_error, True),
        (EngineError(307, "no"), Code.upstream_error, True),
        (EngineError(408, "no"), Code.upstream_error, True),
        (EngineError(429, "no"), Code.no_engine, True),
        (EngineError(500, "no"), Code.upstream_error, True),
        (EngineError(503, "no"), Code.no_engine, True),
        (EngineError(0, "no"), Code.upstream_error, True),
    ],
)
def test_a_fault_before_the_first_byte_is_judged(fault: UpstreamFault, code: Code, elsewhere: bool) -> None:
    judged = judge(fault, begun=False)
    assert (judged.failure.code, judged.elsewhere) == (code, elsewhere)


def test_only_what_the_engine_holds_against_the_request_is_no_warning_for_the_operator() -> None:
    theirs = [status for status in range(400, 600) if judge(EngineError(status, "x"), begun=False).blames_the_request]
    assert theirs == [400, 413, 422]
    assert not judge(TotalTimeout("x"), begun=False).blames_the_request


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 409])
def test_an_engines_refusal_of_our_credential_is_never_the_clients(status: int) -> None:
    failure = judge(EngineError(status, "Incorrect API key provided: sk-secret"), begun=False).failure
    assert status_of(failure) == 502 and "sk-" not in failure.message and failure.public_code is None


def test_an_engines_refusal_of_the_request_is_passed_on() -> None:
    error = EngineError(422, "temperature must be a number", type="t", code="c", param="temperature")
    failure = judge(error, begun=False).failure
    assert (status_of(failure), failure.type, failure.public_code, failure.message, failure.param) == (
        400, "t", "c", "temperature must be a number", "temperature",
    )  # fmt: skip


def test_a_full_engine_rests_and_its_wait_reaches_the_client() -> None:
    judged = judge(EngineError(429, "slow down", retry_after_ms=3000), begun=False)
    assert judged.rest_ms == judged.failure.retry_after_ms == 3000 and status_of(judged.failure) == 503


def test_a_full_engine_that_names_no_wait_rests_a_second_and_leaves_the_clients_wait_to_the_door() -> None:
    judged = judge(EngineError(429, "slow down"), begun=False)
    assert judged.rest_ms == 1000 and judged.failure.retry_after_ms is None


@pytest.mark.parametrize(
    "fault", [Broken("x"), IdleTimeout("x"), TotalTimeout("x"), BadResponse("x"), EngineError(500, "x")]
)
def test_after_the_first_byte_the_client_is_not_told_to_try_again(fault: UpstreamFault) -> None:
    judged = judge(fault, begun=True)
    assert judged.failure.should_retry is False
    assert judged.elsewhere != isinstance(fault, TotalTimeout)  # the rest of it, never the whole


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        (ConnectFailed("x"), True),
        (FirstByteTimeout("x"), True),
        (IdleTimeout("x"), True),
        (Broken("x"), True),
        (BadResponse("x"), True),
        *((EngineError(status, "x"), False) for status in (400, 402, 404, 405, 409, 413, 422)),
        *((EngineError(status, "x"), True) for status in (0, 302, 401, 403, 408, 429, 500, 502, 503, 504)),
        (EngineError(429, "x", retry_after_ms=1000), False),
        (EngineError(503, "x", retry_after_ms=1000), True),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_which_faults_speak_against_their_endpoint(fault: UpstreamFault, broken: bool, begun: bool) -> None:
    assert speaks_against(fault, begun) is broken
    assert judge(fault, begun).broken is broken


def test_a_run_whose_time_ends_inside_an_answer_does_not_speak_against_the_engine() -> None:
    assert speaks_against(TotalTimeout("x"), begun=False) and not speaks_against(TotalTimeout("x"), begun=True)


@given(slots=st.integers(0, 300), count=st.integers(1, 40), name=st.text(max_size=20))
def test_the_seats_share_all_slots_and_none_gets_two_more_than_another(slots: int, count: int, name: str) -> None:
    shares = [share_of(slots, Seat(index, count)) for index in range(count)]
    assert sum(shares) == slots and max(shares) - min(shares) <= 1
    turned = [share_of(slots, Seat(index, count).turned(name)) for index in range(count)]
    assert sorted(turned) == sorted(shares)


def test_what_does_not_divide_falls_to_another_seat_at_each_endpoint() -> None:
    first = [share_of(1, Seat(0, 3).turned(f"e{number}")) for number in range(30)]
    assert 3 < sum(first) < 20


def test_a_price_is_named_for_the_deployment_or_listed_for_the_upstream_model() -> None:
    listed = [Price(model="engine-*", prompt=100, completion=301)]
    named = [Price(model="d1", prompt=7, completion=7)]
    assert price_of_endpoint(endpoint(), named, listed) == 7
    assert price_of_endpoint(endpoint(), [], listed) == 200
    assert price_of_endpoint(endpoint(upstream_model="other"), [], listed) == 0


def test_retries_are_a_share_of_the_runs_and_a_floor() -> None:
    window = RetryWindow(share=0.2, floor=10, seconds=10)
    for _ in range(100):
        window.ran(0.0)
    assert [window.take(1.0) for _ in range(31)] == [True] * 30 + [False]
    assert not window.take(9.9)
    assert [window.take(11.5) for _ in range(11)] == [True] * 10 + [False]


@given(runs=st.integers(0, 200), wanted=st.integers(0, 400))
def test_retries_never_exceed_the_budget(runs: int, wanted: int) -> None:
    window = RetryWindow(share=0.2, floor=10, seconds=10)
    for _ in range(runs):
        window.ran(0.0)
    assert sum(window.take(0.0) for _ in range(wanted)) <= 10 + 0.2 * runs + 1


def test_frames_come_apart_as_storing_gets_slow_and_never_further_than_the_bound() -> None:
    assert frame_gap(0.010, 0.025, 0.0, 0, 0.010) == 0.010
    assert frame_gap(0.010, 0.025, 0.008, 0, 0.010) == 0.016
    assert frame_gap(0.010, 0.025, 1.0, 0, 0.010) == 0.025
    assert frame_gap(0.030, 0.025, 1.0, 0, 0.030) == 0.030
    assert frame_gap(0.0, 0.0, 1.0, 50_000, 0.0) == 0.0


@pytest.mark.parametrize(("runs", "gap"), [(5, 0.010), (20, 0.01414), (40, 0.020), (400, 0.025)])
def test_frames_come_apart_as_more_runs_store_them_and_then_rest(runs: int, gap: float) -> None:
    """Each run stores a frame as often as the gap lets it."""
    now = 0.010
    for _ in range(3):
        now = frame_gap(0.010, 0.025, 0.001, runs / now, now)
    assert now == pytest.approx(gap, rel=0.01)


def test_the_first_frame_says_where_it_came_from_and_what_is_left() -> None:
    grant = Grant(tenant="t", key_id="k", pool="p", limit_requests=60, remaining_requests=59, reset_requests_ms=1500)
    assert public_headers(grant, "e1", stream=True) == {
        "content-type": "text/event-stream; charset=utf-8",
        "x-headrace-endpoint": "e1",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1.5s",
    }
    free = Grant(tenant="t", key_id="k", pool="p")
    assert public_headers(free, "", stream=False) == {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "0ms"), (6, "6ms"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
)
def test_a_duration_is_written_as_openai_does(milliseconds: int, text: str) -> None:
    assert span(milliseconds) == text


def test_an_engine_without_the_route_is_passed_on_and_another_may_have_it() -> None:
    said = EngineError(501, "This server does not support embeddings", type="not_supported_error")
    judged = judge(said, begun=False)
    assert judged.elsewhere and judged.failure.should_retry is False
    assert (judged.failure.status, judged.failure.type) == (501, "not_supported_error")
    assert "does not support embeddings" in judged.failure.message
