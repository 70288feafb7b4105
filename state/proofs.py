"""Values that lie in Redis and carry authority (key records, endpoints) are signed for their place.

Whoever can write to Redis but has no key ring could otherwise make a key an administrator's, or send prompts and
provider credentials to an address of his own. A value that is not proven counts as absent: key records are read from
PostgreSQL again, the provisioner publishes its endpoints again.
An old value that was true once can still be put back; for keys that holds until the next look at PostgreSQL.
"""

from __future__ import annotations

from typing import Protocol

from base.crypto import KeyRing, Signer, Verifier

PUBLISHER = "projection"


class Proofs(Protocol):
    """How values are written and read."""

    def wrap(self, place: str, content: bytes) -> bytes:
        """What to store under `place`."""
        ...

    def open(self, place: str, stored: bytes) -> bytes | None:
        """The content, None when it was not written there by us."""
        ...


class Plain:
    """No proofs: for tests, and for nothing else."""

    def wrap(self, place: str, content: bytes) -> bytes:
        return content

    def open(self, place: str, stored: bytes) -> bytes | None:
        return stored


class Signed:
    """Signature, one space, content."""

    def __init__(self, ring: KeyRing) -> None:
        self._signer, self._verifier = Signer(ring, PUBLISHER), Verifier(ring)

    def wrap(self, place: str, content: bytes) -> bytes:
        return self._signer.sign(place, content) + b" " + content

    def open(self, place: str, stored: bytes) -> bytes | None:
        signature, _, content = stored.partition(b" ")
        return content if self._verifier.check(PUBLISHER, place, content, signature) else None
