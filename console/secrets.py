"""The house's secrets as an operator writes them: read, judged, made. Messages never repeat a secret.

secrets.keyring            SECRET_ENCRYPTION_KEY: BASE64, which counts as `k1:BASE64`; or `k2:NEW,k1:OLD`, current first
secrets.internal_api_key   INTERNAL_API_KEY: a whole token minted under that ring, so it is as strong as any of ours
"""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import unquote, urlsplit

from base.crypto import KeyRing, new_ring_key
from base.ids import Random
from policy.api_keys import ENTROPY_BYTES, mint, present

FIRST_KID = "k1"
HOW_KEY = "make one with `headrace secrets new` or `openssl rand -base64 32`"
HOW_TOKEN = "make one with `headrace secrets key`"
_LEAST_VARIETY = 16  # different bytes among 32; chance gives fewer once in 10^17
_PLACEHOLDERS = {
    *("changeme", "change-me", "change_me", "changeit", "password", "passwort", "secret", "admin", "root"),
    *("postgres", "redis", "valkey", "headrace", "guest", "test", "default", "example", "123456", "12345678"),
}


def ring_text(text: str) -> str:
    """The ring as `kid:base64,...`, "" for nothing. ValueError says which key is wrong and how to make a good one."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) == 1 and ":" not in parts[0]:
        parts = [f"{FIRST_KID}:{parts[0]}"]
    kids = [part.partition(":")[0] for part in parts]
    if any(":" not in part for part in parts):
        raise ValueError(
            f"each key of a list needs its name, the current one first, as in k2:BASE64,k1:BASE64; "
            f"a key that stood alone is {FIRST_KID}"
        )
    if len(set(kids)) != len(kids):
        raise ValueError("two keys of the ring have one name: give the new one another")
    for part, kid in zip(parts, kids, strict=True):
        _check_key(part, kid)
    return ",".join(parts)


def _check_key(part: str, kid: str) -> None:
    try:
        KeyRing.parse(part)
    except ValueError as error:
        raise ValueError(f"{error} (32 random bytes in base64); {HOW_KEY}") from None
    if is_weak(b64decode(part.partition(":")[2])):
        raise ValueError(f"key {kid!r} of the ring is not random; {HOW_KEY}")


def is_weak(secret: bytes) -> bool:
    """Whether 32 bytes look chosen rather than drawn: few different ones, or all of them letters and signs."""
    return len(set(secret)) < _LEAST_VARIETY or all(32 <= byte < 127 for byte in secret)


def check_token(token: str, ring: str) -> str:
    """The token when it was minted under `ring` (as ring_text returns it), else ValueError."""
    if not ring:
        raise ValueError(f"internal_api_key: is minted under the key ring: set SECRET_ENCRYPTION_KEY too; {HOW_KEY}")
    if present(token, KeyRing.parse(ring)) is None:
        raise ValueError(f"internal_api_key: is not a key minted under this key ring; {HOW_TOKEN}")
    return token


def weak_password(name: str, url: str) -> str:
    """Why the password in an address must not be used, "" when it may. No password at all is the server's affair."""
    try:
        password = unquote(urlsplit(url).password or "")
    except ValueError:
        return ""
    if password.lower() in _PLACEHOLDERS:
        return f"{name} has a password that anybody would try first; choose another, `openssl rand -hex 24` makes one"
    return ""


def new_ring(chance: Random) -> str:
    """A ring of one fresh key."""
    return KeyRing([new_ring_key(chance, FIRST_KID)]).format()


def new_token(ring: str, chance: Random) -> str:
    """A token for INTERNAL_API_KEY."""
    return mint(chance.bytes(ENTROPY_BYTES), KeyRing.parse(ring)).token


def with_new_key(ring: str, chance: Random) -> str:
    """The ring with a fresh key in front, named so that none has its name."""
    kids = KeyRing.parse(ring).kids
    kid = next(name for name in (f"k{number}" for number in range(1, len(kids) + 2)) if name not in kids)
    return f"{KeyRing([new_ring_key(chance, kid)]).format()},{ring}"
