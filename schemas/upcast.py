"""Old versions of events become new ones here, by pure steps, one function per (type, version).

Readers are deployed before writers: a version newer than this process is UnknownVersion (released, not poison).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from schemas.envelope import Envelope, known
from schemas.errors import UNREADABLE, DecodeError, UnknownVersion

Step = Callable[[dict[str, Any]], Any]

#: (type, old version) -> function from the old fields to the present event. Empty until a meaning changes.
STEPS: dict[tuple[str, int], Step] = {}


def upcast(envelope: Envelope) -> Any:
    """The present event for an old envelope. UnknownVersion when this process is the older one."""
    step = STEPS.get((envelope.type, envelope.v))
    if step is None:
        word = "version" if known(envelope.type) else "type"
        raise UnknownVersion(f"unknown {word}: {envelope.type} v{envelope.v}")
    try:
        return step(msgspec.json.decode(envelope.data, type=dict[str, Any]))
    except (*UNREADABLE, KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"{envelope.type} v{envelope.v} cannot be raised: {error}", bytes(envelope.data)) from None
