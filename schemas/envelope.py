"""The envelope around every event and command: who says what, in which version, about which run, until when.

On a stream an entry has two fields: `e`, the envelope as JSON, and `s`, the publisher's signature over the stream's
kind and `e`. The signature covers the bytes as they were read, so no canonical form is needed.
Encoding is msgspec over frozen dataclasses, and structs where a message is made for every request: typed decoding in
about 2 us, every failure one DecodeError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import msgspec

from schemas.errors import UNREADABLE, DecodeError, SignatureError, UnknownVersion

T = TypeVar("T")

#: Who may say what on one kind of stream: publisher -> types, as streams.yaml has it.
Publishers = Mapping[str, Collection[str]]
SCRIPT = "script"  # the publisher of what a script writes, which cannot sign


class Event(Protocol):
    """Any of our frozen messages; its class name is the type on the wire."""

    @property
    def version(self) -> int: ...


class SignerPort(Protocol):
    """base.crypto.Signer, as seen from here."""

    publisher: str

    def sign(self, place: str, content: bytes) -> bytes: ...


class VerifierPort(Protocol):
    """base.crypto.Verifier, as seen from here."""

    def check(self, publisher: str, place: str, content: bytes, signature: bytes) -> bool: ...


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The outer fields. `deadline_ms` is a budget from acceptance, never a point on somebody's clock.

    id: unique per event, deterministic where a repeat must be recognised. trace: W3C traceparent or "".
    attempt: which try of the run this is about (the run's epoch), 0 before any.
    """

    id: str
    type: str
    v: int
    by: str
    run: str = ""
    trace: str = ""
    deadline_ms: int = 0
    attempt: int = 0
    at_ms: int = 0
    data: msgspec.Raw


class _Leaving(msgspec.Struct):
    """The same before it leaves, its event not yet encoded."""

    id: str
    type: str
    v: int
    by: str
    run: str
    trace: str
    deadline_ms: int
    attempt: int
    at_ms: int
    data: Event


class Signed(msgspec.Struct, frozen=True):
    """One entry as it lies on a stream."""

    e: bytes
    s: bytes


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)
_REMEMBERED = 1024  # entries read last; rooms of one process read the same ones
_MOST_BYTES = 4096  # longer ones are read each time
_payloads: dict[tuple[str, int], msgspec.json.Decoder[Any]] = {}
_classes: dict[str, type[Any]] = {}


def message(cls: type[T]) -> type[T]:
    """Register a message class: its name and `version` become decodable. Unknown fields are ignored on decoding
    (a field added with a default is the same version); a changed meaning is a new version with an upcaster."""
    version = _version(cls)
    _payloads[cls.__name__, version] = msgspec.json.Decoder(cls)
    _classes[cls.__name__] = cls
    return cls


def _version(cls: type[Any]) -> int:
    if issubclass(cls, msgspec.Struct):
        return next(int(one.default) for one in msgspec.structs.fields(cls) if one.name == "version")
    return int(cls.__dataclass_fields__["version"].default)


def message_classes() -> dict[str, type[Any]]:
    """Every registered message by its wire type; for documents and golden tests."""
    return dict(_classes)


def encode(
    event: Event,
    *,
    id: str,
    by: str,
    run: str = "",
    trace: str = "",
    deadline_ms: int = 0,
    attempt: int = 0,
    at_ms: int = 0,
) -> bytes:
    """The envelope's JSON with the event inside."""
    return _encoder.encode(
        _Leaving(id, type(event).__name__, event.version, by, run, trace, deadline_ms, attempt, at_ms, event)
    )


def sign(signer: SignerPort, place: str, e: bytes) -> Signed:
    """`e` with the signature of its publisher for the stream kind `place` (a name of streams.yaml)."""
    return Signed(e, signer.sign(place, e))


def decode(e: bytes) -> tuple[Envelope, Any]:
    """The envelope and its event. DecodeError for anything malformed, UnknownVersion for a newer sender."""
    return _outer(e), _inner(e)


def _outer(e: bytes) -> Envelope:
    return _outer_known(e) if len(e) <= _MOST_BYTES else _outer_new(e)


def _inner(e: bytes) -> Any:
    return _inner_known(e) if len(e) <= _MOST_BYTES else _inner_new(e)


def _outer_new(e: bytes) -> Envelope:
    try:
        return _decoder.decode(e)
    except UNREADABLE as error:
        raise DecodeError(f"not an envelope: {error}", e) from None


def _inner_new(e: bytes) -> Any:
    envelope = _outer(e)
    payload = _payloads.get((envelope.type, envelope.v))
    if payload is None:
        from schemas.upcast import upcast  # the ladder imports the events, which import this module

        return upcast(envelope)
    try:
        return payload.decode(envelope.data)
    except UNREADABLE as error:
        raise DecodeError(f"{envelope.type} v{envelope.v}: {error}", e) from None


_outer_known = lru_cache(_REMEMBERED)(_outer_new)  # what is read is frozen, so it may be everybody's
_inner_known = lru_cache(_REMEMBERED)(_inner_new)


def known(type_name: str) -> bool:
    """Whether any version of this type is known here."""
    return type_name in _classes


def verify(verifier: VerifierPort, place: str, publishers: Publishers, signed: Signed) -> tuple[Envelope, Any]:
    """Check who says it, and decode. SignatureError when the publisher it names may not say this on `place`, or did
    not sign these bytes; only then DecodeError or UnknownVersion. What only a script may say there stands unsigned."""
    envelope = _outer(signed.e)
    may = publishers.get(envelope.by)
    if may is None or (known(envelope.type) and envelope.type not in may):
        raise SignatureError(f"{envelope.by!r} may not publish {envelope.type} on {place}")
    if envelope.by != SCRIPT and not verifier.check(envelope.by, place, signed.e, signed.s):
        raise SignatureError(f"the signature of {envelope.type} on {place} does not hold")
    return envelope, _inner(signed.e)


__all__ = [
    "SCRIPT",
    "Envelope",
    "Event",
    "Publishers",
    "Signed",
    "SignerPort",
    "UnknownVersion",
    "VerifierPort",
    "decode",
    "encode",
    "known",
    "message",
    "message_classes",
    "sign",
    "verify",
]
