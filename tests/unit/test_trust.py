"""Forged, altered, moved and outdated messages are refused, all of them: every byte of every message that has a golden
file, every publisher on every stream, every place of a sealed piece, and what a key signed that left the ring."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.crypto import CryptoError, KeyRing, RingKey, Signer, Verifier
from base.ids import SystemRandom
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas.errors import DecodeError, SignatureError
from schemas.verdicts import open_verdict, seal_verdict
from tests.golden_support import FORMER, MESSAGES, RING, RUN, VERDICTS, envelope_of
from tests.run_support import CLOCK

TOPOLOGY = load()
PUBLISHERS = sorted({who for stream in TOPOLOGY.streams.values() for who in stream.publishers} | {"stranger"})
SIGNED = [(stream, by, event) for (stream, by), said in MESSAGES.items() for event in said if by != wire.SCRIPT]
SPOKEN = [stream for stream in TOPOLOGY.streams if any(stream == place for place, _, _ in SIGNED)]
EVENTS = {type(event).__name__: event for _, _, event in SIGNED}
ROTATED = KeyRing([RingKey("new", bytes(range(64, 96)))])
_REFUSED = (SignatureError, DecodeError)
every_message = pytest.mark.parametrize(
    ("stream", "by", "event"), SIGNED, ids=[type(event).__name__ for _, _, event in SIGNED]
)


def mutations(content: bytes) -> Iterator[bytes]:
    """Every byte changed in three ways, left out, and doubled; what was there before, cut short and made longer."""
    for place, byte in enumerate(content):
        for mask in (0x01, 0x20, 0x80):
            yield content[:place] + bytes([byte ^ mask]) + content[place + 1 :]
        yield content[:place] + content[place + 1 :]
        yield content[:place] + content[place : place + 1] + content[place:]
    yield b""
    yield content[: len(content) // 2]
    yield content + b" "


def refused(read: Callable[..., object], *arguments: object) -> bool:
    """Whether it was refused as forged or unreadable, and in no other way."""
    try:
        read(*arguments)
    except _REFUSED:
        return True
    return False


def signed(stream: str, by: str, event: wire.Event, ring: KeyRing = RING) -> wire.Signed:
    return wire.sign(Signer(ring, by), stream, envelope_of(event, by))


def verified(stream: str, said: wire.Signed, ring: KeyRing = RING) -> object:
    return wire.verify(Verifier(ring), stream, TOPOLOGY.streams[stream].publishers, said)


@every_message
def test_no_byte_of_a_message_can_be_altered(stream: str, by: str, event: wire.Event) -> None:
    said = signed(stream, by, event)
    verified(stream, said)
    for e in mutations(said.e):
        assert e == said.e or refused(verified, stream, wire.Signed(e, said.s)), e
    for s in mutations(said.s):
        assert s == said.s or refused(verified, stream, wire.Signed(said.e, s)), s


@every_message
def test_no_field_of_a_message_can_be_exchanged(stream: str, by: str, event: wire.Event) -> None:
    """As somebody would do it who knows the format, but no key."""
    said = signed(stream, by, event)
    fields = json.loads(said.e)
    for name, value in fields.items():
        other = {"x": 1} if isinstance(value, dict) else value + 1 if isinstance(value, int) else f"{value}x"
        forged = wire.Signed(json.dumps(fields | {name: other}).encode(), said.s)
        assert refused(verified, stream, forged), name


@pytest.mark.parametrize("stream", SPOKEN)
def test_who_may_say_what_is_what_streams_yaml_says_and_nothing_else(stream: str) -> None:
    taken = set()
    for by in PUBLISHERS:
        for kind, event in EVENTS.items():
            if not refused(verified, stream, signed(stream, by, event)):
                taken.add((by, kind))
    assert taken == {(by, kind) for by, kinds in TOPOLOGY.streams[stream].publishers.items() for kind in kinds}


@every_message
def test_a_message_holds_on_its_own_stream_only(stream: str, by: str, event: wire.Event) -> None:
    said = signed(stream, by, event)
    publishers = {by: (type(event).__name__,)}  # even if it might be said there
    for other in TOPOLOGY.streams:
        if other != stream:
            with pytest.raises(SignatureError):
                wire.verify(Verifier(RING), other, publishers, said)


@every_message
def test_a_key_that_left_the_ring_signs_nothing(stream: str, by: str, event: wire.Event) -> None:
    said = signed(stream, by, event, FORMER)
    verified(stream, said)
    assert refused(lambda: verified(stream, said, ROTATED))


def test_an_unsigned_message_of_unknown_version_is_forged_and_not_new() -> None:
    said = signed("requests", "ingress", EVENTS["RequestAccepted"])
    newer = wire.Signed(said.e.replace(b'"v":1', b'"v":7', 1), said.s)
    with pytest.raises(SignatureError):
        verified("requests", newer)


@pytest.mark.parametrize("name", VERDICTS)
def test_no_byte_of_a_verdict_can_be_altered_nor_its_family(name: str) -> None:
    verdict = VERDICTS[name]
    stored = seal_verdict(Signer(RING, verdict.family), verdict)
    assert open_verdict(Verifier(RING), verdict.family, stored) == verdict
    for other in mutations(stored):
        assert other == stored or refused(open_verdict, Verifier(RING), verdict.family, other), other
    for family in PUBLISHERS:
        assert family == verdict.family or refused(open_verdict, Verifier(RING), family, stored)
    forged = seal_verdict(Signer(RING, "stranger"), verdict)
    assert refused(lambda: open_verdict(Verifier(RING), verdict.family, forged))
    former = seal_verdict(Signer(FORMER, verdict.family), verdict)
    assert refused(lambda: open_verdict(Verifier(ROTATED), verdict.family, former))


HANDS = Seals(RING, "router", CLOCK, SystemRandom())
PUBLIC = {"content-type": "text/event-stream"}
places = st.tuples(
    st.sampled_from([RUN, f"{RUN[:-1]}2"]),
    st.integers(0, 3),
    st.integers(1, 4),
    st.sampled_from(["data", "end", "error"]),
    st.integers(1, 3),
    st.sampled_from([b"", json.dumps(PUBLIC, separators=(",", ":")).encode(), b"{}"]),
)


@given(places, places)
def test_a_frame_opens_at_its_place_of_its_run_only(
    here: tuple[str, int, int, str, int, bytes], there: tuple[str, int, int, str, int, bytes]
) -> None:
    run, epoch, last, kind, events, headers = here
    sealed = HANDS.frame(run, epoch, last, kind, events, b"data: x\n\n", json.loads(headers) if headers else None)
    here = (run, epoch, last, kind, events, sealed.headers)

    def opened() -> object:
        run, epoch, last, kind, events, headers = there
        return HANDS.open_frame(run, epoch, last, kind, events, sealed.payload, headers)

    assert refused(opened) == (here != there)


def test_no_byte_of_a_sealed_frame_or_body_can_be_altered() -> None:
    frame = HANDS.frame(RUN, 1, 2, "data", 1, b"data: secret\n\n", PUBLIC)
    for payload in mutations(frame.payload):
        if payload != frame.payload:
            assert refused(HANDS.open_frame, RUN, 1, 2, "data", 1, payload, frame.headers)
    body = HANDS.body(RUN, b'{"model":"m"}')
    for sealed in mutations(body):
        if sealed != body:
            with pytest.raises(CryptoError):
                HANDS.open_body(RUN, sealed)
