"""What makes two requests the same one."""

from __future__ import annotations

import pytest

from base.crypto import KeyRing, RingKey
from ingress.once import once_key, once_of
from policy.disconnect import for_a_retry, governing, narrowed
from schemas.errors import Failure, Refusal
from schemas.ports import Once
from schemas.routes import CHAT, COMPLETIONS

OLD, NEW = RingKey("k1", bytes(range(32))), RingKey("k2", bytes(range(1, 33)))
RING = KeyRing([OLD])


def once(
    key: bytes = b"key", body: bytes = b'{"a":1,"b":2}', who: str = "k", route: str = CHAT, ring: KeyRing = RING
) -> Once:
    return once_of(ring, "org", who, route, key, body)


def test_the_same_request_has_the_same_marks_whatever_the_order_of_its_fields() -> None:
    assert once() == once(body=b'{"b":2,"a":1}')


def test_another_body_is_another_request_under_the_same_name() -> None:
    (one,), (two,) = once().marks, once(body=b'{"a":1}').marks
    assert one.name == two.name and one.asked != two.asked


@pytest.mark.parametrize("other", [{"key": b"kez"}, {"who": "l"}, {"route": COMPLETIONS}])
def test_another_key_credential_or_route_is_another_name(other: dict[str, object]) -> None:
    assert once().marks[0].name != once(**other).marks[0].name  # type: ignore[arg-type]


def test_a_rotated_ring_knows_what_the_old_one_named_in_the_same_partition() -> None:
    rotated = once(ring=KeyRing([NEW, OLD]))
    assert rotated.marks[1:] == once().marks and rotated.marks[0] != rotated.marks[1]
    assert rotated.spread == once().spread


def test_the_key_itself_is_in_nothing_that_goes_on() -> None:
    assert "very-secret" not in repr(once(key=b"very-secret"))


@pytest.mark.parametrize("text", [b"", b"k" * 256, b"tab\there", b"caf\xc3\xa9"])
def test_a_key_that_cannot_be_is_refused_with_its_header_named(text: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        once_key({b"idempotency-key": text})
    assert refused.value.failure.param == "idempotency-key"
    assert text.decode("latin1") not in refused.value.failure.message or not text


def test_a_key_is_optional() -> None:
    assert once_key({}) is None and once_key({b"idempotency-key": b"k" * 255}) == b"k" * 255


def test_only_a_run_that_would_be_cancelled_at_once_waits_for_its_client_to_come_again() -> None:
    assert for_a_retry("cancel", 10.0) == "grace:10" and for_a_retry("cancel", 0) == "cancel"
    assert for_a_retry("finish", 10.0) == "finish" and for_a_retry("grace:3", 10.0) == "grace:3"


@pytest.mark.parametrize(
    ("key", "model", "wish", "policy"),
    [
        ("", "", "", "grace:10"),
        ("", "", "cancel", "cancel"),
        ("", "", "grace:5", "grace:5"),
        ("", "", "grace:11", None),
        ("", "", "finish", None),
        ("cancel", "", "", "cancel"),
        ("", "cancel", "grace:10", None),
        ("finish", "cancel", "grace:60", "grace:60"),
    ],
)
def test_patience_for_a_retry_is_the_servers_word_which_key_and_model_outrank_and_requests_may_lower(
    key: str, model: str, wish: str, policy: str | None
) -> None:
    said = narrowed(governing(key, model, for_a_retry("cancel", 10.0)), wish)
    assert said == policy if policy else isinstance(said, Failure)
