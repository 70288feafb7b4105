"""Ring, seals and signatures: what is sealed opens only at its place, what is signed holds only as it was said."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.crypto import CryptoError, KeyRing, RingKey, Sealer, Signer, Verifier, mac_of, new_ring_key
from base.ids import SystemRandom

_KEY, _OLD = RingKey("k2", bytes(range(32))), RingKey("k1", bytes(range(32, 64)))
_RING = KeyRing([_KEY, _OLD])
_SEALER = Sealer(_RING, SystemRandom())
_names = st.text(min_size=1, max_size=20)


@given(st.binary(max_size=2_000), _names, _names)
def test_what_is_sealed_opens_at_its_place(plain: bytes, run: str, place: str) -> None:
    sealed = _SEALER.seal(plain, run=run, place=place)
    assert _SEALER.open(sealed, run=run, place=place) == plain
    assert len(sealed) == len(plain) + 2 + len("k2") + 12 + 16


@given(st.binary(max_size=200), _names, _names, _names)
def test_moved_seal_does_not_open(plain: bytes, run: str, place: str, other: str) -> None:
    sealed = _SEALER.seal(plain, run=run, place=place)
    for there, where in [(other, place), (run, other)]:
        if (there, where) != (run, place):
            with pytest.raises(CryptoError):
                _SEALER.open(sealed, run=there, place=where)


@given(st.binary(max_size=100), st.data())
def test_altered_seal_does_not_open(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(_SEALER.seal(plain, run="r", place="p"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CryptoError):
        _SEALER.open(bytes(sealed), run="r", place="p")


@given(st.binary(max_size=60))
def test_noise_does_not_open(noise: bytes) -> None:
    with pytest.raises(CryptoError):
        _SEALER.open(noise, run="r", place="p")


@given(st.binary(max_size=100))
def test_equal_texts_are_sealed_differently(plain: bytes) -> None:
    assert _SEALER.seal(plain, run="r", place="p") != _SEALER.seal(plain, run="r", place="p")


def test_rotation_opens_old_and_seals_new() -> None:
    before = Sealer(KeyRing([_OLD]), SystemRandom()).seal(b"x", run="r", place="p")
    assert _SEALER.open(before, run="r", place="p") == b"x"
    with pytest.raises(CryptoError):
        Sealer(KeyRing([_OLD]), SystemRandom()).open(_SEALER.seal(b"x", run="r", place="p"), run="r", place="p")


@given(_names, _names, st.binary(max_size=200))
def test_signature_holds_for_publisher_place_and_content(publisher: str, place: str, content: bytes) -> None:
    signature = Signer(_RING, publisher).sign(place, content)
    check = Verifier(_RING).check
    assert check(publisher, place, content, signature)
    assert not check(publisher + "x", place, content, signature)
    assert not check(publisher, place + "x", content, signature)
    assert not check(publisher, place, content + b"x", signature)


@given(st.binary(max_size=100))
def test_noise_is_no_signature(noise: bytes) -> None:
    assert not Verifier(_RING).check("p", "place", b"content", noise)


@given(st.binary(max_size=100))
def test_noise_under_a_known_key_is_no_signature(noise: bytes) -> None:
    assert not Verifier(_RING).check("p", "place", b"content", b"k2:" + noise)


def test_former_key_still_verifies_and_an_unknown_one_does_not() -> None:
    old = Signer(KeyRing([_OLD]), "p").sign("place", b"c")
    assert Verifier(_RING).check("p", "place", b"c", old)
    assert not Verifier(KeyRing([_KEY])).check("p", "place", b"c", old)


def test_ring_is_read_as_it_is_written() -> None:
    assert KeyRing.parse(_RING.format()).kids == ("k2", "k1")
    assert KeyRing.parse(_RING.format()).derive("k1", "seal") == _RING.derive("k1", "seal")


@pytest.mark.parametrize("text", ["", "k1:short", "k1:AAAA", "k1:!!!", "no colon", f"{'k' * 17}:{'A' * 43}="])
def test_bad_ring_is_refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"ring|key") as caught:
        KeyRing.parse(text)
    secret = text.partition(":")[2]
    assert not secret or secret not in str(caught.value)


def test_new_keys_differ() -> None:
    assert new_ring_key(SystemRandom(), "a").secret != new_ring_key(SystemRandom(), "a").secret


@given(st.binary(max_size=64), st.binary(max_size=2_000))
def test_a_mac_is_the_standard_librarys_and_the_next_one_is_not_mixed_with_it(key: bytes, content: bytes) -> None:
    for text in (content, b"", content + b"x"):
        assert mac_of(key)(text) == hmac.digest(key, text, "sha256")


def test_a_key_that_would_have_to_be_shortened_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 64 bytes"):
        mac_of(b"k" * 65)
