"""API keys: `hr_<id>_<secret>_<check>`, lower-case hexadecimal, 93 characters.

    id      64 bits, public: what records and logs name
    secret 192 bits: never stored; the record holds HMAC-SHA-256 of it under a pepper of the key ring
    check   96 bits of an HMAC over id and secret under the door key of the same ring key

Only keys we minted pass the check, without any look-up, so a flood of invented keys costs a MAC each and nothing
behind the door. The ring key whose check holds also names the pepper, so a token and its record always agree on it,
however often the ring was rotated. Taking a key out of the ring ends the tokens minted under it: rotate them first.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

ID_BYTES, SECRET_BYTES, CHECK_BYTES = 8, 24, 12
ENTROPY_BYTES = ID_BYTES + SECRET_BYTES
_TOKEN = re.compile(
    rf"hr_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})_([0-9a-f]{{{2 * CHECK_BYTES}}})"
)
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")


class Ring(Protocol):
    """base.crypto.KeyRing, as seen from here."""

    current: str

    @property
    def kids(self) -> Sequence[str]: ...

    def derive(self, kid: str, purpose: str) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What of a presented token travels on: the id and the MAC of its secret by ring key mac_kid."""

    key_id: str
    secret_mac: str
    mac_kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A new token, to be shown once, and the credential to store. The token stays out of repr and thus out of logs."""

    token: str = field(repr=False)
    credential: Credential


def mint(entropy: bytes, ring: Ring, *, key_id: str = "") -> Minted:
    """A token from ENTROPY_BYTES unpredictable bytes under the ring's current key.

    key_id: rotate that key (same id, new secret). ValueError for a wrong amount of entropy or a malformed id."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key needs exactly {ENTROPY_BYTES} random bytes")
    if key_id and not is_key_id(key_id):
        raise ValueError("not a key id: 16 characters of 0-9 a-f")
    name = key_id or entropy[:ID_BYTES].hex()
    secret = entropy[ID_BYTES:].hex()
    kid = ring.current
    token = f"hr_{name}_{secret}_{_check(ring, kid, name, secret)}"
    return Minted(token=token, credential=_credential(ring, kid, name, secret))


def adopt(token: str, ring: Ring) -> Minted:
    """A token that was minted elsewhere under the same ring. ValueError when it was not."""
    credential = present(token, ring)
    if credential is None:
        raise ValueError("the token was not minted under this key ring")
    return Minted(token=token, credential=credential)


def present(token: str, ring: Ring) -> Credential | None:
    """The credential of a token that we minted, else None. Look nothing up for a None: it is not one of ours."""
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        return None
    name, secret, check = parts.groups()
    for kid in ring.kids:
        if hmac.compare_digest(_check(ring, kid, name, secret), check):
            return _credential(ring, kid, name, secret)
    return None


def is_key_id(text: str) -> bool:
    """Whether `text` has the form of a key id."""
    return _ID.fullmatch(text) is not None


def _check(ring: Ring, kid: str, name: str, secret: str) -> str:
    return hmac.digest(ring.derive(kid, "door"), f"{name}_{secret}".encode(), "sha256")[:CHECK_BYTES].hex()


def _credential(ring: Ring, kid: str, name: str, secret: str) -> Credential:
    mac = hmac.digest(ring.derive(kid, "pepper"), secret.encode(), "sha256").hex()
    return Credential(key_id=name, secret_mac=mac, mac_kid=kid)
