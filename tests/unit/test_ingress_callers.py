"""Who calls again is known again, nobody else is, and no secret stays in memory for it."""

from __future__ import annotations

import pytest

from base.crypto import KeyRing, RingKey
from base.ids import SystemRandom
from ingress.credentials import Callers, credential_of
from policy.api_keys import ENTROPY_BYTES, mint
from schemas.errors import Refusal

RING = KeyRing([RingKey("k1", b"1" * 32)])
CHANCE = SystemRandom()


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {token}".encode()}


def fresh_token() -> str:
    return mint(CHANCE.bytes(ENTROPY_BYTES), RING).token


def test_a_caller_is_the_same_the_second_time_by_either_header() -> None:
    callers, token = Callers(RING), fresh_token()
    for headers in (bearer(token), bearer(token), {b"x-api-key": token.encode()}):
        assert callers.credential_of(headers) == credential_of(headers, RING)


def test_a_token_that_differs_in_one_character_is_refused_beside_its_like() -> None:
    callers, token = Callers(RING), fresh_token()
    callers.credential_of(bearer(token))
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    for _ in range(2):
        with pytest.raises(Refusal):
            callers.credential_of(bearer(wrong))
    with pytest.raises(Refusal):
        callers.credential_of({b"authorization": b"Basic x", b"x-api-key": wrong.encode()})


def test_neither_tokens_nor_secrets_nor_refused_ones_are_kept() -> None:
    callers, token = Callers(RING), fresh_token()
    callers.credential_of(bearer(token))
    kept = repr(vars(callers)["_known"])
    assert token.split("_")[2] not in kept
    with pytest.raises(Refusal):
        callers.credential_of(bearer("hr_invented"))
    assert repr(vars(callers)["_known"]) == kept


def test_the_oldest_caller_is_forgotten_when_there_are_too_many() -> None:
    callers = Callers(RING)
    for _ in range(1100):
        callers.credential_of(bearer(fresh_token()))
    assert len(vars(callers)["_known"]) == 1024
