"""A delivery of group `audit` or `ledger` -> what in it can be believed.

The script that ends a run puts beside the fact (`e`, `s`) the acceptance (`a`, `as`), each verdict (`v:<family>`) and
the times (`t`). Whoever can write to Redis could have put others there, so each part is believed only under the
signature of the one who may say it, and only about this run. Without a believable fact there is nothing (an error);
any other part that fails is left out and named in `unverified`. The times are the script's own and unsigned.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from schemas.envelope import Envelope, Signed, VerifierPort, verify
from schemas.errors import UNREADABLE, DecodeError, SignatureError
from schemas.events import (
    FactTimes,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestFailed,
    RequestRefused,
    Terminal,
)
from schemas.outcomes import Delivery
from schemas.verdicts import Grant, Verdict, open_verdict

_TERMINAL = (RequestCompleted, RequestFailed, RequestRefused, RequestCancelled)
_DOOR = {"ingress": ("RequestAccepted",)}
_FAMILY = b"v:"
_times = msgspec.json.Decoder(FactTimes)

ACCEPTANCE, TIMES = "acceptance", "times"
AUTHORIZATION = "authorization"


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A run's end with what is proven about it. verdicts: by family. unverified: the parts that were left out."""

    envelope: Envelope
    fact: Terminal
    accepted: RequestAccepted | None
    verdicts: Mapping[str, Verdict]
    times: FactTimes
    unverified: tuple[str, ...]

    @property
    def run(self) -> str:
        return self.envelope.run

    @property
    def grant(self) -> Grant | None:
        """What authorization found out about the caller; None when it never said, or not provably."""
        said = self.verdicts.get(AUTHORIZATION)
        return said.grant if said else None


def open_fact(delivery: Delivery, verifier: VerifierPort, publishers: Mapping[str, list[str]]) -> Opened:
    """publishers: who may say what on `facts` (streams.yaml). SignatureError, DecodeError: the fact itself is not to be
    believed. UnknownVersion: a part is newer than this process."""
    envelope, fact = _fact(delivery, verifier, publishers)
    failed: list[str] = []
    accepted = _accepted(delivery, verifier, failed)
    return Opened(
        envelope=envelope,
        fact=fact,
        accepted=accepted,
        verdicts=_verdicts(delivery, verifier, accepted, failed),
        times=_read_times(delivery, failed),
        unverified=tuple(failed),
    )


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Whose reservations a run may have. grant: what authorization said of its caller. key_id: whose key the run was
    accepted with, where it ended before authorization had spoken and may yet have reserved; else ""."""

    run: str
    grant: Grant | None = None
    key_id: str = ""


def open_holder(delivery: Delivery, verifier: VerifierPort, publishers: Mapping[str, list[str]]) -> Holder:
    """Only the run and whose it is, for the ledger. Raises like open_fact."""
    envelope, _ = _fact(delivery, verifier, publishers)
    stored = delivery.fields.get(_FAMILY + AUTHORIZATION.encode())
    if not stored:
        accepted = _accepted(delivery, verifier, [])
        return Holder(run=envelope.run, key_id=accepted.key_id if accepted else "")
    said = _verdict(verifier, AUTHORIZATION, stored)
    believed = said is not None and _about(said, AUTHORIZATION, envelope.run, None)
    return Holder(run=envelope.run, grant=said.grant if said and believed else None)


def _fact(delivery: Delivery, verifier: VerifierPort, publishers: Mapping[str, list[str]]) -> tuple[Envelope, Terminal]:
    """The fact under its publisher's signature, of a kind that this publisher may say, about the envelope's run."""
    signed = Signed(delivery.fields.get(b"e", b""), delivery.fields.get(b"s", b""))
    envelope, fact = verify(verifier, "facts", publishers, signed)
    if not isinstance(fact, _TERMINAL) or fact.run != envelope.run:
        raise DecodeError(f"{envelope.type} is not the end of run {envelope.run}", signed.e)
    return envelope, fact


def _accepted(delivery: Delivery, verifier: VerifierPort, failed: list[str]) -> RequestAccepted | None:
    """The acceptance, if the door signed it and it is of this run."""
    signed = Signed(delivery.fields.get(b"a", b""), delivery.fields.get(b"as", b""))
    try:
        _, accepted = verify(verifier, "requests", _DOOR, signed)
    except (SignatureError, DecodeError):
        accepted = None
    if not isinstance(accepted, RequestAccepted) or accepted.run != delivery.run:
        failed.append(ACCEPTANCE)
        return None
    return accepted


def _verdicts(
    delivery: Delivery, verifier: VerifierPort, accepted: RequestAccepted | None, failed: list[str]
) -> dict[str, Verdict]:
    """The verdicts that their families signed about this run and, as far as it is known, this body."""
    found: dict[str, Verdict] = {}
    for name, stored in delivery.fields.items():
        if not name.startswith(_FAMILY):
            continue
        family = name.removeprefix(_FAMILY).decode("utf8", "replace")
        verdict = _verdict(verifier, family, stored)
        if verdict is not None and _about(verdict, family, delivery.run, accepted):
            found[family] = verdict
        else:
            failed.append(family)
    return found


def _about(verdict: Verdict, family: str, run: str, accepted: RequestAccepted | None) -> bool:
    same_body = accepted is None or verdict.body_digest == accepted.body_digest
    return verdict.family == family and verdict.run == run and same_body


def _verdict(verifier: VerifierPort, family: str, stored: bytes) -> Verdict | None:
    try:
        return open_verdict(verifier, family, stored)
    except (SignatureError, DecodeError):
        return None


def _read_times(delivery: Delivery, failed: list[str]) -> FactTimes:
    try:
        return _times.decode(delivery.fields.get(b"t", b""))
    except UNREADABLE:
        failed.append(TIMES)
        return FactTimes()
