"""What was once written is still read: every golden file decodes, verifies, opens, and is written the same again."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from base.crypto import CryptoError, KeyRing, RingKey, Sealer, Signer, Verifier
from base.ids import SystemRandom
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas.errors import SignatureError
from schemas.frames import pack, unpack
from schemas.verdicts import open_verdict, seal_verdict
from tests.golden_support import FOLDER, FORMER, RING, write
from tests.run_support import CLOCK

_FILES = sorted(FOLDER.glob("*.json"))
_MESSAGES = [file for file in _FILES if file.name[0].isupper()]
_VERDICTS = [file for file in _FILES if file.name.startswith("verdict_")]
_SEALED = [file for file in _FILES if file.name.startswith("sealed_")]


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _name(file: Path) -> str:
    return file.stem


def _said_again(old: bytes, new: bytes) -> None:
    """The same bytes; or, where the class has grown fields with defaults since, the same content and more."""
    before, after = json.loads(old), json.loads(new)
    if _names(before) == _names(after):
        assert new == old
    else:
        _contains(after, before)


def _names(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _names(part) for key, part in value.items()}
    return [_names(part) for part in value] if isinstance(value, list) else None


def _contains(after: Any, before: Any) -> None:
    if isinstance(before, dict):
        for key, value in before.items():
            _contains(after[key], value)
    elif isinstance(before, list):
        assert len(before) == len(after)
        for one, other in zip(after, before, strict=True):
            _contains(one, other)
    else:
        assert after == before


def test_no_kind_of_message_is_without_its_file() -> None:
    load()
    assert write() == [], "new golden files were written: look at them and commit them"
    kinds = {file.stem.rpartition("_v")[0] for file in _MESSAGES}
    assert kinds == set(wire.message_classes())


def _may(golden: dict[str, Any]) -> dict[str, list[str]]:
    """Its publisher may say it."""
    return {golden["by"]: [json.loads(golden["e"])["type"]]}


@pytest.mark.parametrize("file", _MESSAGES, ids=_name)
def test_message_is_verified_decoded_and_written_the_same(file: Path) -> None:
    golden = _read(file)
    e = golden["e"].encode()
    signed = wire.Signed(e, golden["s"].encode())
    envelope, event = wire.verify(Verifier(RING), golden["stream"], _may(golden), signed)
    again_signed = wire.sign(Signer(RING, golden["by"]), golden["stream"], e)
    assert golden["by"] == wire.SCRIPT or again_signed == signed
    again = wire.encode(
        event,
        id=envelope.id,
        by=envelope.by,
        run=envelope.run,
        trace=envelope.trace,
        deadline_ms=envelope.deadline_ms,
        attempt=envelope.attempt,
        at_ms=envelope.at_ms,
    )
    _said_again(e, again)


@pytest.mark.parametrize("file", [file for file in _MESSAGES if "Cleared" not in file.name], ids=_name)
def test_message_does_not_hold_on_another_stream_by_another_or_changed(file: Path) -> None:
    golden = _read(file)
    signed, may = wire.Signed(golden["e"].encode(), golden["s"].encode()), _may(golden)
    cases: list[tuple[str, wire.Publishers, wire.Signed]] = [
        ("elsewhere", may, signed),
        (golden["stream"], {"nobody": may[golden["by"]]}, signed),
        (golden["stream"], {golden["by"]: ()}, signed),
        (golden["stream"], may, wire.Signed(signed.e.replace(b"1", b"2", 1), signed.s)),
        (golden["stream"], may, wire.Signed(signed.e, signed.s[:-1] + b"g")),
        (golden["stream"], may, wire.Signed(signed.e, b"")),
    ]
    for place, publishers, said in cases:
        with pytest.raises(SignatureError):
            wire.verify(Verifier(RING), place, publishers, said)


@pytest.mark.parametrize("file", _VERDICTS, ids=_name)
def test_verdict_is_opened_and_sealed_the_same(file: Path) -> None:
    golden = _read(file)
    stored, family = golden["stored"].encode(), golden["family"]
    verdict = open_verdict(Verifier(RING), family, stored)
    again = seal_verdict(Signer(RING, family), verdict)
    _said_again(stored.partition(b" ")[2], again.partition(b" ")[2])
    with pytest.raises(SignatureError):
        open_verdict(Verifier(RING), "other", stored)


@pytest.mark.parametrize("file", _SEALED, ids=_name)
def test_sealed_bytes_still_open_and_only_at_their_place(file: Path) -> None:
    golden = _read(file)
    sealed, plain = base64.b64decode(golden["sealed"]), base64.b64decode(golden["plain"])
    sealer = Sealer(RING, SystemRandom())
    assert sealer.open(sealed, run=golden["run"], place=golden["place"]) == plain
    for run, place in [("other", golden["place"]), (golden["run"], "frame/9-9")]:
        with pytest.raises(CryptoError):
            sealer.open(sealed, run=run, place=place)


def test_dead_letter_still_opens() -> None:
    golden = _read(FOLDER / "letter.json")
    seals = Seals(RING, "console", CLOCK, SystemRandom())
    opened = seals.open_letter(base64.b64decode(golden["sealed"]), golden["entry"])
    assert opened == {"e": b"{}", "s": b"\xff"}


def test_archived_frames_are_read_and_written_the_same() -> None:
    golden = _read(FOLDER / "archived_frames.json")
    packed = base64.b64decode(golden["packed"])
    frames = unpack(packed)
    shown = [
        {**msgspec.structs.asdict(one), "payload": one.payload.hex(), "headers": one.headers.decode()} for one in frames
    ]
    assert (shown, pack(frames)) == (golden["frames"], packed)


def test_ring_without_the_key_opens_nothing_and_with_it_as_a_former_one_everything() -> None:
    current, former = _read(FOLDER / "sealed_body.json"), _read(FOLDER / "sealed_body_under_the_former_key.json")
    strangers = KeyRing([RingKey("golden", bytes(32))])
    for ring, golden in [(FORMER, current), (strangers, current), (strangers, former)]:
        with pytest.raises(CryptoError):
            Sealer(ring, SystemRandom()).open(
                base64.b64decode(golden["sealed"]), run=golden["run"], place=golden["place"]
            )
