"""Key ring, sealing and signing: every key the house uses is derived here from one ring.

- The ring is an ordered list of 256-bit keys: the first encrypts and signs, all of them open and verify,
  so a rotation is "put a new key in front, drop the last one later".
- Purposes get their own keys by HKDF-Expand (RFC 5869 section 2.3; the ring's keys are uniformly random, so the
  extract step is not needed, section 3.3).
- Sealing is AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce under a key derived for one run, and the
  purpose and place of the text as associated data: a frame moved elsewhere does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from base.ids import Random

KEY_BYTES = 32
NONCE_BYTES = 12
_SEAL_VERSION = 1
_RUN_CACHE = 2048  # derived run keys kept per process; one is about 0.5 kB
_PROVEN_CACHE = 2048  # signatures that are known to hold, with what they sign; about 1 kB each
_PROVEN_BYTES = 4096  # longer contents are checked each time


class CryptoError(Exception):
    """Sealed bytes or a signature that this ring cannot accept."""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One key of the ring: `kid` (1..16 characters of [a-z0-9]) and 32 secret bytes."""

    kid: str
    secret: bytes


class KeyRing:
    """The house's secrets. The first key is current; the others only open and verify.

    proven: signatures made or checked here not long ago -> whose, and the place and content that they hold for."""

    def __init__(self, keys: Sequence[RingKey]) -> None:
        if not keys:
            raise ValueError("the key ring is empty: set secrets.keyring to kid:base64(32 bytes)")
        for key in keys:
            if len(key.secret) != KEY_BYTES or not key.kid.isalnum() or not 1 <= len(key.kid) <= 16:
                raise ValueError(f"key {key.kid!r} of the ring must be a short name and {KEY_BYTES} bytes")
        self._keys = {key.kid: key.secret for key in keys}
        self._derived: dict[tuple[str, str], bytes] = {}
        self._ciphers: OrderedDict[tuple[str, str], AESGCM] = OrderedDict()
        self.proven: OrderedDict[bytes, tuple[str, str, bytes]] = OrderedDict()
        self.current = keys[0].kid

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """From `kid:base64,kid:base64`, current first. ValueError says what is wrong, never the key."""
        keys = []
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            kid, _, encoded = part.partition(":")
            try:
                keys.append(RingKey(kid, base64.b64decode(encoded, validate=True)))
            except binascii.Error:
                raise ValueError(f"key {kid!r} of the ring is not base64") from None
        return cls(keys)

    def format(self) -> str:
        """The text that `parse` reads."""
        return ",".join(f"{kid}:{base64.b64encode(secret).decode()}" for kid, secret in self._keys.items())

    @property
    def kids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def derive(self, kid: str, purpose: str) -> bytes:
        """32 bytes for `purpose` under key `kid`. CryptoError when the ring no longer has that key."""
        found = self._derived.get((kid, purpose))
        if found is None:
            if kid not in self._keys:
                raise CryptoError(f"key {kid!r} is not in the ring")
            found = _expand(self._keys[kid], purpose)
            self._derived[kid, purpose] = found
        return found

    def cipher(self, kid: str, run: str) -> AESGCM:
        """What seals and opens everything of one run. CryptoError when the ring no longer has that key."""
        found = self._ciphers.get((kid, run))
        if found is None:
            found = AESGCM(_expand(self.derive(kid, "seal"), run))
            self._ciphers[kid, run] = found
            if len(self._ciphers) > _RUN_CACHE:
                self._ciphers.popitem(last=False)
        return found

    def prove(self, publisher: str, place: str, content: bytes, signature: bytes) -> None:
        """Remember that it holds: rooms of one process read what others of it have read or signed."""
        if len(content) <= _PROVEN_BYTES:
            self.proven[signature] = publisher, place, content
            if len(self.proven) > _PROVEN_CACHE:
                self.proven.popitem(last=False)


def new_ring_key(chance: Random, kid: str) -> RingKey:
    """A fresh ring key from unpredictable bytes."""
    return RingKey(kid, chance.bytes(KEY_BYTES))


@lru_cache(maxsize=64)
def mac_of(key: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA-256 (RFC 2104) under `key`, at most 64 bytes, with the key's blocks worked out once: hmac.digest does
    that for each message, which takes longer than the message (1.7 us instead of 0.7 up to 100 bytes)."""
    block = key.ljust(64, b"\0")
    if len(block) > 64:
        raise ValueError("a key for HMAC-SHA-256 has at most 64 bytes here")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def mac(content: bytes) -> bytes:
        inside, outside = inner.copy(), outer.copy()
        inside.update(content)
        outside.update(inside.digest())
        return outside.digest()

    return mac


def _expand(secret: bytes, info: str) -> bytes:
    """HKDF-Expand, one block: T(1) = HMAC(PRK, info | 0x01)."""
    return mac_of(secret)(info.encode() + b"\x01")


class Sealer:
    """Seals and opens what lies in Redis: bodies, frames, dead letters. Not shared between threads."""

    def __init__(self, ring: KeyRing, chance: Random) -> None:
        self._ring = ring
        self._chance = chance
        self._kid = ring.current
        self._head = bytes((_SEAL_VERSION, len(self._kid))) + self._kid.encode()

    def seal(self, plain: bytes, *, run: str, place: str) -> bytes:
        """version(1) | length of kid(1) | kid | nonce(12) | ciphertext and tag. About 2 us at 1 kB."""
        return self.of_run(run).seal(plain, place)

    def open(self, sealed: bytes, *, run: str, place: str) -> bytes:
        """What `seal` was given. CryptoError when altered, moved to another place or sealed by an unknown key."""
        if len(sealed) < 2 or sealed[0] != _SEAL_VERSION:
            raise CryptoError("not sealed by this version")
        start = 2 + sealed[1]
        kid, nonce = sealed[2:start].decode("latin1"), sealed[start : start + NONCE_BYTES]
        try:
            return self._ring.cipher(kid, run).decrypt(nonce, sealed[start + NONCE_BYTES :], place.encode())
        except (InvalidTag, ValueError):
            raise _does_not_open(place) from None

    def of_run(self, run: str) -> RunSealer:
        """The same for what belongs to one run: its key is not looked up again."""
        return RunSealer(self, run, self._head, self._chance, self._ring.cipher(self._kid, run))


class RunSealer:
    """Seals and opens what belongs to one run. Made by Sealer.of_run; what is under a former key goes back there."""

    __slots__ = ("_chance", "_cipher", "_head", "_run", "_sealer")

    def __init__(self, sealer: Sealer, run: str, head: bytes, chance: Random, cipher: AESGCM) -> None:
        self._sealer, self._run, self._head, self._chance, self._cipher = sealer, run, head, chance, cipher

    def seal(self, plain: bytes, place: str) -> bytes:
        """See Sealer.seal."""
        nonce = self._chance.bytes(NONCE_BYTES)
        return self._head + nonce + self._cipher.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """See Sealer.open."""
        start = len(self._head)
        if sealed[:start] != self._head:
            return self._sealer.open(sealed, run=self._run, place=place)
        end = start + NONCE_BYTES
        try:
            return self._cipher.decrypt(sealed[start:end], sealed[end:], place.encode())
        except (InvalidTag, ValueError):
            raise _does_not_open(place) from None


def _does_not_open(place: str) -> CryptoError:
    return CryptoError(f"sealed bytes of {place} do not open: altered, moved or another key")


class Signer:
    """Signs as one publisher kind. Signature text: `<kid>:<64 hex digits>`; 2-3 us at 1 kB."""

    def __init__(self, ring: KeyRing, publisher: str) -> None:
        self.publisher = publisher
        self._ring = ring
        self._head = f"{ring.current}:"
        self._mac = mac_of(ring.derive(ring.current, f"sign/{publisher}"))

    def sign(self, place: str, content: bytes) -> bytes:
        """HMAC-SHA256 over place and content; `place` names the stream kind, so a replay elsewhere fails."""
        signature = (self._head + self._mac(place.encode() + b"\n" + content).hex()).encode()
        self._ring.prove(self.publisher, place, content, signature)
        return signature


class Verifier:
    """Checks signatures of any publisher kind with any key of the ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def check(self, publisher: str, place: str, content: bytes, signature: bytes) -> bool:
        """Constant-time comparison; False for an unknown key, an altered content or a malformed signature."""
        if self._ring.proven.get(signature) == (publisher, place, content):
            return True
        kid, _, given = signature.decode("latin1").partition(":")
        if kid not in self._ring.kids:
            return False
        key = self._ring.derive(kid, f"sign/{publisher}")
        expected = mac_of(key)(place.encode() + b"\n" + content).hex()
        if not hmac.compare_digest(expected.encode(), given.encode("latin1")):
            return False
        self._ring.prove(publisher, place, content, signature)
        return True


def digest(content: bytes) -> str:
    """SHA-256 as hexadecimal text: the name of a body in verdicts and edits."""
    return hashlib.sha256(content).hexdigest()
