"""Provider credentials as text that may lie in commands, PostgreSQL and Redis: sealed for one deployment.

The console seals, the router opens for a call and the provisioner for a probe. Sealed for another deployment it does
not open. A rotation of the key ring leaves old ones readable until their key is taken out; adding the model again
seals under the current key.
"""

from __future__ import annotations

import base64
import binascii

from base.crypto import CryptoError, Sealer


def seal_credential(sealer: Sealer, deployment: str, plain: str) -> str:
    """The credential as base64 text; "" stays ""."""
    if not plain:
        return ""
    return base64.b64encode(sealer.seal(plain.encode(), run=deployment, place=f"credential/{deployment}")).decode()


def open_credential(sealer: Sealer, deployment: str, sealed: str) -> str:
    """What was sealed for this deployment; "" for "". CryptoError when it was not, or its key left the ring."""
    if not sealed:
        return ""
    try:
        return sealer.open(base64.b64decode(sealed), run=deployment, place=f"credential/{deployment}").decode()
    except (binascii.Error, UnicodeDecodeError):
        raise CryptoError(f"the credential of {deployment} is not one of ours") from None
