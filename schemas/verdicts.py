"""What a family answers about a run: pass, refuse, edits or skip. Every family always answers.

A verdict is stored as `<kid>:<mac> <json>`: the MAC covers family and JSON under the place "verdict", the JSON names
run, body digest and policy version, so a verdict can't be moved to another run, body or family. The router checks all
of them before it opens an upstream.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from schemas.envelope import SignerPort, VerifierPort
from schemas.errors import UNREADABLE, DecodeError, Failure, SignatureError

PASS, REFUSE, EDITS, SKIP = "pass", "refuse", "edits", "skip"
PLACE = "verdict"


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """Replace text[start:end] (code points) of the string at `pointer` (RFC 6901) in the body `digest`.

    Never carries the matched text. kind: what was found (email, card, person ...)."""

    digest: str
    pointer: str
    start: int
    end: int
    replacement: str
    kind: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a family found in the string at `pointer` (RFC 6901): the kind, and how sure the surest match is, 0..1."""

    pointer: str
    kind: str
    score: float


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What authorization found out about the caller; only its verdict carries one.

    tenant: the organization. pool and lane: where the run goes. weight: the tenant's share. cost: tokens that the run
    is expected to take. priority: goes first inside its tenant, 0 = as usual. fail: family -> open | closed, what a
    missing verdict means. scopes: whose limits were reserved (settled by the ledger).
    on_disconnect: the policy of this run, "" = as accepted. limit_*: for the x-ratelimit headers; reset in
    milliseconds; -1 = unlimited.
    """

    tenant: str
    key_id: str
    pool: str
    lane: str = "interactive"
    weight: int = 1
    cost: int = 1
    priority: int = 0
    fail: dict[str, str] = msgspec.field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    on_disconnect: str = ""
    limit_requests: int = -1
    remaining_requests: int = -1
    reset_requests_ms: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One family's answer. found: kind -> count of what was seen, also when only flagged; never text.

    sought, seen: only on a route that asks what is seen (moderations): the kinds that were looked for, and where one
    was found."""

    run: str
    family: str
    outcome: str
    policy: str
    body_digest: str
    edits: tuple[Edit, ...] = ()
    failure: Failure | None = None
    grant: Grant | None = None
    found: dict[str, int] = msgspec.field(default_factory=dict)
    took_us: int = 0
    sought: tuple[str, ...] = ()
    seen: tuple[Seen, ...] = ()
    version: int = 1


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Verdict)


def seal_verdict(signer: SignerPort, verdict: Verdict) -> bytes:
    """The stored form: signature, one space, JSON."""
    content = _encoder.encode(verdict)
    return signer.sign(f"{PLACE}/{verdict.family}", content) + b" " + content


def open_verdict(verifier: VerifierPort, family: str, stored: bytes) -> Verdict:
    """The verdict of `family`, whose publisher must be the family itself. SignatureError, DecodeError."""
    signature, _, content = stored.partition(b" ")
    if not verifier.check(family, f"{PLACE}/{family}", content, signature):
        raise SignatureError(f"the verdict of {family} is not signed by it")
    return read_verdict(content)


def read_verdict(content: bytes) -> Verdict:
    """A verdict from its JSON, unverified."""
    return _known(content) if len(content) <= _MOST_BYTES else _read(content)


def _read(content: bytes) -> Verdict:
    try:
        return _decoder.decode(content)
    except UNREADABLE as error:
        raise DecodeError(f"not a verdict: {error}", content) from None


_known = lru_cache(1024)(_read)  # verdicts are never changed, so what one room has read may be another's
_MOST_BYTES = 4096  # longer ones are read each time


def limit_headers(grant: Grant) -> dict[str, str]:
    """OpenAI's x-ratelimit headers for a caller with a limit of requests per minute, else none."""
    if grant.limit_requests < 0:
        return {}
    return {
        "x-ratelimit-limit-requests": str(grant.limit_requests),
        "x-ratelimit-remaining-requests": str(max(grant.remaining_requests, 0)),
        "x-ratelimit-reset-requests": span(grant.reset_requests_ms),
    }


def span(milliseconds: int) -> str:
    """A duration as OpenAI writes it: 6ms, 1.5s, 1m30s, 1h0m0s."""
    if milliseconds < 1000:
        return f"{max(milliseconds, 0)}ms"
    minutes, seconds = divmod(milliseconds / 1000, 60)
    text = f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + text
