"""One process's hands: it seals, signs, opens and verifies with the ring, under its publisher's name.

Everything that turns a value into stored bytes (or back) goes through here, so that place names can't drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from base.clock import Clock
from base.crypto import CryptoError, KeyRing, RunSealer, Sealer, Signer, Verifier
from base.ids import Random
from runtime.scripts import Ending, SealedFrame
from schemas import envelope as wire
from schemas.errors import DecodeError, Failure
from schemas.events import RequestCancelled, RequestCompleted, RequestFailed, RequestRefused, Terminal
from schemas.frames import ERROR, Frame, StoredFrame, encode_failure, place

_OUTCOME = {
    RequestCompleted: "completed",
    RequestFailed: "failed",
    RequestRefused: "refused",
    RequestCancelled: "cancelled",
}
_BODY = "body"  # where it is sealed
_headers = msgspec.json.Decoder(dict[str, str])  # made once: a frame of a router always has some
encode_headers = msgspec.json.Encoder().encode


class RunSeals:
    """Seals and opens frames of one run."""

    __slots__ = ("_headers", "_known", "_sealer")

    def __init__(self, sealer: RunSealer) -> None:
        self._sealer = sealer
        self._headers = b""  # of the last frame that was opened; most have the same
        self._known: dict[str, str] = {}

    def frame(
        self, epoch: int, last: int, kind: str, events: int, payload: bytes, public: bytes, said: int = 0
    ) -> SealedFrame:
        """Sealed for the place `<epoch>-<last>`. public: as `encode_headers` gave it; said: see SealedFrame."""
        sealed = self._sealer.seal(payload, place(epoch, last, kind, events, public))
        return SealedFrame(kind=kind, events=events, payload=sealed, headers=public, said=said)

    def body(self, plain: bytes) -> bytes:
        """See Seals.body."""
        return self._sealer.seal(plain, _BODY)

    def open(self, stored: StoredFrame) -> Frame:
        """DecodeError when it does not open at its place."""
        epoch, last, kind, events, headers = stored.epoch, stored.sequence, stored.kind, stored.events, stored.headers
        try:
            payload = self._sealer.open(stored.payload, place(epoch, last, kind, events, headers))
        except CryptoError as error:
            raise DecodeError(str(error)) from None
        if headers != self._headers:
            self._headers, self._known = headers, _headers.decode(headers) if headers else {}
        return Frame(epoch=epoch, sequence=last, kind=kind, events=events, payload=payload, headers=self._known)

    def open_body(self, sealed: bytes) -> bytes:
        """See Seals.open_body."""
        return self._sealer.open(sealed, "body")


class Seals:
    """Sealing and signing for one publisher kind (ingress, rules, router, sweeper ...)."""

    def __init__(self, ring: KeyRing, publisher: str, clock: Clock, chance: Random) -> None:
        self.publisher = publisher
        self.signer = Signer(ring, publisher)
        self.verifier = Verifier(ring)
        self._sealer = Sealer(ring, chance)
        self._clock = clock

    def body(self, run: str, plain: bytes) -> bytes:
        """A request body, sealed for its run."""
        return self._sealer.seal(plain, run=run, place=_BODY)

    def open_body(self, run: str, sealed: bytes) -> bytes:
        """CryptoError when it was altered or belongs to another run."""
        return self._sealer.open(sealed, run=run, place=_BODY)

    def frame(
        self, run: str, epoch: int, last: int, kind: str, events: int, payload: bytes, headers: Mapping[str, str] | None
    ) -> SealedFrame:
        """A frame sealed for the place `<epoch>-<last>`."""
        public = encode_headers(headers) if headers else b""
        return self.frame_of(run, epoch, last, kind, events, payload, public)

    def frame_of(
        self, run: str, epoch: int, last: int, kind: str, events: int, payload: bytes, public: bytes
    ) -> SealedFrame:
        """The same with headers as `encode_headers` gave them."""
        return self.of_run(run).frame(epoch, last, kind, events, payload, public)

    def of_run(self, run: str) -> RunSeals:
        """The same hands for many frames of one run."""
        return RunSeals(self._sealer.of_run(run))

    def error(
        self, run: str, epoch: int, last: int, failure: Failure, headers: Mapping[str, str] | None = None
    ) -> SealedFrame:
        """An error frame: one event."""
        return self.frame(run, epoch, last, ERROR, 1, encode_failure(failure), headers)

    def open_frame(
        self, run: str, epoch: int, last: int, kind: str, events: int, sealed: bytes, headers: bytes
    ) -> Frame:
        """A stored frame, opened. DecodeError when it does not open at this place."""
        stored = StoredFrame(epoch=epoch, sequence=last, kind=kind, events=events, payload=sealed, headers=headers)
        return self.of_run(run).open(stored)

    def ending(self, fact: Terminal, attempt: int) -> Ending:
        """A terminal fact, enveloped and signed. Its id is the same however often it is said."""
        e = wire.encode(
            fact,
            id=f"{fact.run}/end/{attempt}",
            by=self.publisher,
            run=fact.run,
            attempt=attempt,
            at_ms=self._clock.now_ms(),
        )
        return Ending(
            kind=type(fact).__name__,
            signed=wire.sign(self.signer, "facts", e),
            outcome=_OUTCOME[type(fact)],
            tokens=_tokens(fact),
        )

    def letter(self, fields: Mapping[bytes, bytes], entry: str) -> bytes:
        """A dead entry's fields, sealed."""
        plain = msgspec.json.encode({k.decode("utf8", "replace"): v for k, v in fields.items()})
        return self._sealer.seal(plain, run="dlq", place=f"dlq/{entry}")

    def open_letter(self, sealed: bytes, entry: str) -> dict[str, bytes]:
        """CryptoError when it does not open."""
        plain = self._sealer.open(sealed, run="dlq", place=f"dlq/{entry}")
        return msgspec.json.decode(plain, type=dict[str, bytes])


def _tokens(fact: Terminal) -> int | None:
    """What the run took of its engine; None for one that never reached an engine."""
    usage = None if isinstance(fact, RequestRefused) else fact.usage
    return usage.prompt_tokens + usage.completion_tokens if usage else None
