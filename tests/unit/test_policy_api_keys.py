"""The token: only what we minted passes, and its secret never travels."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.crypto import KeyRing, RingKey
from policy.api_keys import ENTROPY_BYTES, is_key_id, mint, present

OLD, NEW = RingKey("k1", b"\x01" * 32), RingKey("k2", b"\x02" * 32)
RING = KeyRing([OLD])
ENTROPY = bytes(range(ENTROPY_BYTES))


def test_a_minted_token_is_presented_as_the_credential_that_was_stored() -> None:
    minted = mint(ENTROPY, RING)
    assert present(minted.token, RING) == minted.credential
    assert minted.credential.mac_kid == "k1"
    assert is_key_id(minted.credential.key_id)


def test_the_token_has_four_parts_and_a_check_of_at_least_eighty_bits() -> None:
    prefix, key_id, secret, check = mint(ENTROPY, RING).token.split("_")
    assert prefix == "hr"
    assert len(bytes.fromhex(key_id)) == 8
    assert len(bytes.fromhex(secret)) * 8 >= 192
    assert len(bytes.fromhex(check)) * 8 >= 80


def test_what_is_stored_is_neither_the_secret_nor_its_plain_hash() -> None:
    minted = mint(ENTROPY, RING)
    secret = minted.token.split("_")[2]
    assert secret not in repr(minted.credential)
    assert minted.credential.secret_mac != hashlib.sha256(secret.encode()).hexdigest()


def test_a_minted_token_does_not_show_in_repr() -> None:
    minted = mint(ENTROPY, RING)
    assert minted.token not in repr(minted)
    assert minted.token.split("_")[2] not in repr(minted)


@given(st.integers(min_value=0, max_value=92), st.sampled_from("0123456789abcdefABCDEF_ghr"))
def test_no_token_with_one_character_changed_passes(place: int, character: str) -> None:
    token = mint(ENTROPY, RING).token
    forged = token[:place] + character + token[place + 1 :]
    assert forged == token or present(forged, RING) is None


@given(st.text(max_size=200))
def test_arbitrary_text_is_no_token_and_no_error(text: str) -> None:
    assert present(text, RING) is None


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: t + "\n", lambda t: " " + t, lambda t: t + "0", lambda t: t[:-1]]
)
def test_a_token_is_taken_literally(change) -> None:  # type: ignore[no-untyped-def]
    assert present(change(mint(ENTROPY, RING).token), RING) is None


def test_a_token_of_another_house_does_not_pass() -> None:
    other = KeyRing([RingKey("k1", b"\x09" * 32)])
    assert present(mint(ENTROPY, other).token, RING) is None


def test_the_check_part_covers_the_id() -> None:
    first, second = mint(ENTROPY, RING).token, mint(ENTROPY[::-1], RING).token
    swapped = "_".join(("hr", second.split("_")[1], *first.split("_")[2:]))
    assert present(swapped, RING) is None


def test_after_a_rotation_of_the_ring_old_tokens_still_meet_their_stored_mac() -> None:
    minted = mint(ENTROPY, RING)
    rotated = KeyRing([NEW, OLD])
    assert present(minted.token, rotated) == minted.credential
    assert mint(ENTROPY, rotated).credential.mac_kid == "k2"


def test_tokens_end_with_the_ring_key_they_were_minted_under() -> None:
    assert present(mint(ENTROPY, RING).token, KeyRing([NEW])) is None


def test_rotating_a_key_keeps_its_id_and_changes_its_secret() -> None:
    first = mint(ENTROPY, RING)
    second = mint(ENTROPY[::-1], RING, key_id=first.credential.key_id)
    assert second.credential.key_id == first.credential.key_id
    assert second.credential.secret_mac != first.credential.secret_mac
    assert present(second.token, RING) == second.credential


def test_minting_needs_all_its_entropy_and_a_proper_id() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        mint(b"short", RING)
    with pytest.raises(ValueError, match="key id"):
        mint(ENTROPY, RING, key_id="../etc")
