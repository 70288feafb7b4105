"""Whether a run may reach an engine, from its verdicts alone. Pure.

RequestCleared is written by a script and carries no authority, so the router believes only what the families signed:
each verdict must be theirs, about this run and this body, and none may refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
import orjson

from schemas.edits import apply_edits
from schemas.envelope import VerifierPort
from schemas.errors import Code, DecodeError, Refusal, SignatureError
from schemas.events import RequestAccepted
from schemas.verdicts import EDITS, PASS, REFUSE, SKIP, Edit, Grant, Verdict, open_verdict

AUTHORIZATION = "authorization"


class Clearance(msgspec.Struct, frozen=True):
    """Leave to answer: what authorization granted, what must be replaced in the body before an engine sees it, and what
    the guards said, for a run that asks just that."""

    grant: Grant
    edits: tuple[Edit, ...]
    said: tuple[Verdict, ...] = ()


def clear(
    accepted: RequestAccepted, body_digest: str, verdicts: Mapping[str, bytes], verifier: VerifierPort
) -> Clearance:
    """The clearance of a run whose body has `body_digest`. Refusal(internal_error) when anything does not hold,
    Refusal(guardrail_unavailable) when a guard that must answer has not."""
    if body_digest != accepted.body_digest:
        raise _refusal("the stored body is not the accepted one")
    found = {family: _open(accepted, family, verdicts, verifier) for family in _asked(accepted.families)}
    grant = _grant(found.pop(AUTHORIZATION))
    for family, verdict in found.items():
        if verdict is None and grant.fail.get(family) != "open":
            raise Refusal.of(Code.guardrail_unavailable, f"The guard {family!r} did not answer. Retry later.")
    edits = [edit for verdict in found.values() if verdict and verdict.edits for edit in _edits(accepted, verdict)]
    return Clearance(grant, tuple(edits), tuple([verdict for verdict in found.values() if verdict]))


def edited(body: bytes, edits: Sequence[Edit]) -> bytes:
    """The body that an engine may see. Refusal(internal_error) when an edit does not fit: unedited it never leaves."""
    if not edits:
        return body
    try:
        return orjson.dumps(apply_edits(orjson.loads(body), edits))
    except (LookupError, ValueError, TypeError):
        raise _refusal("an edit does not fit the body") from None


@lru_cache(maxsize=64)
def _asked(families: tuple[str, ...]) -> tuple[str, ...]:
    """Who must have answered; authorization always."""
    return tuple(dict.fromkeys((AUTHORIZATION, *families)))


def _open(
    accepted: RequestAccepted, family: str, verdicts: Mapping[str, bytes], verifier: VerifierPort
) -> Verdict | None:
    """One family's verdict, or None when there is none. Refusal when it is forged, strange or a refusal."""
    stored = verdicts.get(family)
    if stored is None:
        return None
    try:
        verdict = open_verdict(verifier, family, stored)
    except (SignatureError, DecodeError) as error:
        raise _refusal(str(error)) from None
    place = (verdict.run, verdict.family, verdict.body_digest)
    if place != (accepted.run, family, accepted.body_digest):
        raise _refusal(f"the verdict of {family} is about another run or body")
    if verdict.outcome == REFUSE:
        raise Refusal(verdict.failure) if verdict.failure else _refusal(f"{family} refused this run")
    if verdict.outcome not in (PASS, EDITS, SKIP):
        raise _refusal(f"the verdict of {family} has an unknown outcome")
    return verdict


def _grant(verdict: Verdict | None) -> Grant:
    if verdict is None or verdict.outcome != PASS or verdict.grant is None:
        raise _refusal("authorization granted nothing")
    return verdict.grant


def _edits(accepted: RequestAccepted, verdict: Verdict) -> tuple[Edit, ...]:
    if any(edit.digest != accepted.body_digest for edit in verdict.edits):
        raise _refusal(f"an edit of {verdict.family} is about another body")
    return verdict.edits


def _refusal(reason: str) -> Refusal:
    """What does not hold is for our log and the operator; the client learns that it is our fault."""
    return Refusal.of(Code.internal_error, f"This request could not be cleared for an engine: {reason}.")
