"""Small decisions of the door: patience, headers, stalls, numbering of events."""

from __future__ import annotations

import pytest

from ingress.headers import (
    client_request_id,
    deadline_ms,
    disconnect_wish,
    frame_headers,
    own_headers,
    priority,
    traceparent,
    wants_strict,
)
from ingress.reading import belongs
from ingress.replay import events_of, numbered
from ingress.routes.work import outcome_of
from ingress.sse import Pace
from ingress.stalls import Mark, judge
from schemas.errors import Code, Failure, Refusal
from schemas.frames import DATA, END, ERROR, Frame, encode_failure
from schemas.ports import RunStatus
from schemas.records import KeyRecord

PACE = Pace(keep_alive=15, commit_after=45, give_up=605)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_before_the_answer_begins_one_waits_until_commit() -> None:
    assert PACE.patience(False, 0, 0) == 45
    assert PACE.patience(False, 40, 0) == 5
    assert PACE.patience(False, 50, 0) == 0


def test_after_it_began_one_waits_a_keep_alive_or_to_the_end() -> None:
    assert PACE.patience(True, 100, 0) == 15
    assert PACE.patience(True, 100, 4) == 11  # something was sent 4 s ago
    assert PACE.patience(True, 100, 20) == 0
    assert PACE.patience(True, 600, 0) == 5
    assert PACE.patience(True, 700, 0) == 0


@pytest.mark.parametrize(
    ("announced", "milliseconds"),
    [
        (b"", 600_000),
        (b"30", 30_000),
        (b"0.5", 500),
        (b"9999", 3_600_000),
        (b"-1", 600_000),
        (b"0", 600_000),
        (b"nan", 600_000),
        (b"inf", 600_000),
        (b"soon", 600_000),
    ],
)
def test_the_clients_read_timeout_is_the_deadline_within_bounds(announced: bytes, milliseconds: int) -> None:
    assert deadline_ms({b"x-stainless-read-timeout": announced}, 600, 3600) == milliseconds


def test_a_priority_is_a_small_whole_number_or_is_refused() -> None:
    assert priority({}) is None
    assert [priority({b"x-headrace-priority": text}) for text in (b"0", b" -10", b"10")] == [0, -10, 10]
    for wrong in (b"", b"11", b"1.5", b"high", b"\xff"):
        with pytest.raises(Refusal) as refused:
            priority({b"x-headrace-priority": wrong})
        assert refused.value.failure.param == "x-headrace-priority"


def test_a_wish_for_the_time_after_leaving_is_a_policy_or_is_refused() -> None:
    assert disconnect_wish({}) == ""
    for policy in (b"cancel", b"finish", b" grace:30", b"grace:0.5"):
        assert disconnect_wish({b"x-headrace-on-disconnect": policy}) == policy.decode().strip()
    for wrong in (b"", b"stop", b"grace", b"grace:-1", b"grace:soon", b"FINISH", b"\xff"):
        with pytest.raises(Refusal) as refused:
            disconnect_wish({b"x-headrace-on-disconnect": wrong})
        assert refused.value.failure.param == "x-headrace-on-disconnect"


def test_a_valid_traceparent_is_carried_and_anything_else_is_not() -> None:
    assert traceparent({b"traceparent": TRACE.encode()}) == TRACE
    for wrong in (b"", b"00-xyz", TRACE.upper().encode(), b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"\xff"):
        assert traceparent({b"traceparent": wrong}) == ""


def test_the_callers_own_request_id_is_kept_for_the_record() -> None:
    assert client_request_id({b"x-client-request-id": b"abc-1"}) == "abc-1"
    assert client_request_id({b"x-client-request-id": b"a" * 500}) == "a" * 128
    assert client_request_id({b"x-client-request-id": b"a\xffb"}) == ""


def test_a_frame_cannot_set_any_header_it_likes() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-headrace-endpoint": "e1",
        "content-type": "text/html",
        "set-cookie": "a=b",
        "x-ratelimit-evil": "a\r\nset-cookie: b",
    }
    assert frame_headers(headers) == [(b"x-ratelimit-limit-requests", b"60"), (b"x-headrace-endpoint", b"e1")]


def test_a_run_is_named_only_once_it_exists() -> None:
    assert (b"x-headrace-run", b"r") not in own_headers("r", False, 0.1)
    assert own_headers("r", True, 0.0126) == [
        (b"x-request-id", b"r"),
        (b"openai-processing-ms", b"13"),
        (b"x-headrace-run", b"r"),
    ]


def test_a_reader_that_moves_at_all_starts_anew() -> None:
    mark = Mark(sends=3, unsent=1000, since=5.0)
    assert judge(mark, 3, 1000, 9.0) is mark
    assert judge(mark, 3, 999, 9.0).since == 9.0
    assert judge(mark, 4, 1000, 9.0).since == 9.0
    assert judge(None, 3, 1000, 9.0).since == 9.0


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("", 200, "completed"),
        (Code.cancelled, 0, "cancelled"),
        (Code.invalid_api_key, 401, "refused"),
        (Code.overloaded, 503, "failed"),
        (Code.upstream_interrupted, 200, "failed"),
    ],
)
def test_requests_are_counted_by_how_they_ended(code: str, status: int, outcome: str) -> None:
    assert outcome_of(code, status) == outcome


def frame(kind: str, payload: bytes, sequence: int, events: int) -> Frame:
    return Frame(epoch=1, sequence=sequence, kind=kind, events=events, payload=payload)


def test_a_frame_of_several_events_is_told_apart_event_by_event() -> None:
    payload = b": hello\n\ndata: a\n\ndata:b\r\n\r\nevent: x\ndata: c1\ndata: c2\n\n"
    assert events_of(frame(DATA, payload, 9, 3), True) == [(7, b"a"), (8, b"b"), (9, b"c1\nc2")]


def test_text_that_looks_like_an_event_stays_one_event() -> None:
    payload = 'data: {"content":"data: [DONE]\\n\\n\u2028\u2029"}\n\n'.encode()
    assert events_of(frame(DATA, payload, 1, 1), True) == [(1, payload[6:-2])]


def test_a_unary_answer_and_an_error_are_one_event() -> None:
    assert events_of(frame(END, b'{\n"a": 1\n}', 1, 1), False) == [(1, b'{\n"a": 1\n}')]
    failure = encode_failure(Failure(code=Code.no_engine.value, message="none"))
    ((number, data),) = events_of(frame(ERROR, failure, 4, 1), True)
    assert number == 4
    assert b'"message":"none"' in data


def test_data_of_several_lines_keeps_every_line() -> None:
    assert numbered(3, b"{\n}") == b"id: 3\ndata: {\ndata: }\n\n"


def test_a_run_belongs_to_its_key_and_its_tenant_only() -> None:
    def status(tenant: str) -> RunStatus:
        return RunStatus(
            run="r", state="ended", outcome="", key_id="k", tenant=tenant, stream=True, sequence=1, epoch=1, times={},
            detail={},
        )  # fmt: skip

    def key(key_id: str, tenant: str) -> KeyRecord:
        return KeyRecord(key_id=key_id, tenant=tenant, name="", secret_mac="", mac_kid="")

    assert belongs(status(""), key("k", "acme"))
    assert belongs(status("acme"), key("other", "acme"))
    assert not belongs(status("acme"), key("other", "rival"))
    assert not belongs(status(""), key("other", ""))


def test_durability_can_only_be_asked_to_be_strict() -> None:
    assert not wants_strict({}) and wants_strict({b"x-headrace-durability": b" strict "})
    for wrong in (b"", b"default", b"strict, default", b"\xff"):
        with pytest.raises(Refusal) as caught:
            wants_strict({b"x-headrace-durability": wrong})
        assert caught.value.failure.param == "x-headrace-durability"
