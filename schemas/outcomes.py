"""What a handler is given and what it answers. Handlers decide; the runtime acts.

A handler never acks, retries or dead-letters: it returns one of these values per delivery, and `runtime/` does the
rest (retry, reclaim, dead letter, ack). Raising is the same as Again without a delay, counted against the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.envelope import Envelope
from schemas.events import Terminal
from schemas.verdicts import Verdict


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One entry handed to a handler, signature checked.

    stream: the full key. entry: the stream id. starts: how often it was started before, 0 = fresh.
    fields: the raw entry, for facts with their extra fields. body: the run's body as it lies, where it was read along
    with the entry, else empty."""

    stream: str
    entry: str
    envelope: Envelope
    event: Any
    starts: int = 0
    fields: Mapping[bytes, bytes] = msgspec.field(default_factory=dict)
    body: bytes = b""

    @property
    def run(self) -> str:
        return self.envelope.run


class Done(msgspec.Struct, frozen=True):
    """Handled; acknowledge it."""


class Settled(msgspec.Struct, frozen=True):
    """Handled, and a script of the run has acknowledged it already (claim, end)."""


class Again(msgspec.Struct, frozen=True):
    """Try again after `seconds`; counts as a start."""

    seconds: float = 0.0
    reason: str = ""


class Dead(msgspec.Struct, frozen=True):
    """Poison: to the dead-letter stream now, with the reason."""

    reason: str


class Decided(msgspec.Struct, frozen=True):
    """A family's answer: the verdict script stores it and acknowledges the entry in one step.

    `ending`: the terminal fact to use if this refusal ends the run (refusals only)."""

    verdict: Verdict
    ending: Terminal | None = None


Outcome = Done | Settled | Again | Dead | Decided
