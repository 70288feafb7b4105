"""Provider keys at rest: sealed for one deployment, opened by the router alone.

The console seals with `seal_credential` before it publishes DeployModel; records carry the text as it is; the router
opens it with `SealedCredentials`. A credential moved to another deployment does not open.
"""

from __future__ import annotations

import base64
import binascii

from base.crypto import CryptoError, Sealer
from schemas.records import EndpointRecord

_PLACE = "credential"
_KEPT = 1024  # opened credentials kept in the process


def seal_credential(sealer: Sealer, deployment: str, plain: str) -> str:
    """The text for DeployModel.credential and EndpointRecord.credential; "" stays ""."""
    return base64.b64encode(sealer.seal(plain.encode(), run=deployment, place=_PLACE)).decode() if plain else ""


def open_credential(sealer: Sealer, deployment: str, sealed: str) -> str:
    """The plain key. ValueError when it is altered, another deployment's, or of a key that the ring no longer has."""
    if not sealed:
        return ""
    try:
        return sealer.open(base64.b64decode(sealed, validate=True), run=deployment, place=_PLACE).decode()
    except (CryptoError, binascii.Error, UnicodeDecodeError):
        raise ValueError(f"the credential of {deployment} does not open") from None


class SealedCredentials:
    """Opens the credentials of endpoints; each once in a process."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._opened: dict[tuple[str, str], str] = {}

    def reveal(self, endpoint: EndpointRecord) -> str:
        """The plain key of an endpoint, "" when it has none. ValueError when it cannot be opened."""
        key = (endpoint.deployment, endpoint.credential)
        found = self._opened.get(key)
        if found is None:
            found = open_credential(self._sealer, endpoint.deployment, endpoint.credential)
            if len(self._opened) >= _KEPT:
                self._opened.clear()
            self._opened[key] = found
        return found
