"""Who is calling? The credential in the headers, and the check of routes that start no work.

Only the key's check part is looked at for runs: no look-up, no secret kept. What travels on is the key's id and an HMAC
of its secret; authorization decides. Routes that start no work ask the same policy here, over the key records.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from ingress.parts import Parts
from policy.api_keys import Credential, Ring, present
from policy.decision import INVALID_KEY, Allowed, Need, Refused, decide
from schemas.errors import Refusal
from schemas.records import INFERENCE

_CALLERS = 1024  # remembered at once, about half a kilobyte each


def token_of(headers: Mapping[bytes, bytes]) -> str:
    """The token of `Authorization: Bearer` (any case), else of x-api-key, else ""."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        token = headers.get(b"x-api-key", b"")
    return token.strip().decode("latin1")


def credential_of(headers: Mapping[bytes, bytes], ring: Ring) -> Credential:
    """The credential of a key that we minted; Refusal(invalid_api_key) for anything else."""
    credential = present(token_of(headers), ring)
    if credential is None:
        raise Refusal(INVALID_KEY)
    return credential


class Callers:
    """`credential_of`, remembered for those who called last: by a digest of what they showed, so no secret is kept, and
    only for keys that we minted, so nobody can fill it."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._known: dict[bytes, Credential] = {}

    def credential_of(self, headers: Mapping[bytes, bytes]) -> Credential:
        """See `credential_of`."""
        shown = headers.get(b"authorization", b"") + b"\n" + headers.get(b"x-api-key", b"")
        name = sha256(shown).digest()
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = credential_of(headers, self._ring)
            if len(self._known) > _CALLERS:
                del self._known[next(iter(self._known))]
        return found


async def allow(headers: Mapping[bytes, bytes], parts: Parts, model: str | None = None) -> Allowed:
    """Authenticate a route that starts no work, with the inference scope and, where one is named, the model.

    Refusal: invalid_api_key, permission_denied, model_not_found. Unavailable when no store answers."""
    credential = credential_of(headers, parts.ring)
    record = await parts.keys.find(credential.key_id)
    found = await parts.catalog.model(model) if model is not None else None
    decision = decide(record, credential, Need(scope=INFERENCE, model=model), found, parts.clock.now_ms())
    if isinstance(decision, Refused):
        raise Refusal(decision.failure)
    return decision
