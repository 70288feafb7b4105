"""A claim of a run: what it brings, and who may have one with a verdict that clears the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from runtime.wire import translate
from schemas.errors import HeadraceError


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """state: ok | gone | lost. With ok: the run's epoch, its last sequence, ms left, sealed body, and of its
    hash what a router needs: the acceptance, the verdicts, deadline, cancel, when it was accepted and cleared."""

    state: str
    epoch: int = 0
    sequence: int = 0
    left_ms: int = 0
    body: bytes = b""
    fields: Mapping[str, bytes] = msgspec.field(default_factory=dict)


class Taker(msgspec.Struct, frozen=True, kw_only=True):
    """A router with a place for one more run of a pool, and the owner it will be: `<consumer>:<nonce>`."""

    consumer: str
    owner: str
    pool: str


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a lane, delivered to a Taker. claim: of its run by that Taker; None where it is another run's than
    the one that was cleared, and still to be claimed."""

    entry: str
    envelope: bytes
    claim: Claim | None = None


class Moved(NamedTuple):
    """Whether a run was moved on, its state now (checking | queued | running | ended | gone), and what was handed over
    in the same step."""

    moved: bool
    state: str
    handed: Handed | None = None


def moved_of(reply: list[Any] | bytes) -> Moved | HeadraceError:
    """From the answer of the verdict script for one run, or why it was refused."""
    if isinstance(reply, bytes):
        return translate(reply.decode().removeprefix("error "))
    return Moved(bool(reply[0]), reply[1].decode(), _handed_of(reply) if len(reply) > 2 else None)


def _handed_of(reply: Sequence[Any]) -> Handed:
    claim = claim_of(reply[4]) if len(reply) > 4 else None
    return Handed(entry=reply[2].decode(), envelope=reply[3], claim=claim)


def claim_of(reply: Sequence[Any]) -> Claim:
    """From the answer of the claim script."""
    state = reply[0].decode()
    if state != "ok":
        return Claim(state=state)
    return Claim(
        state=state,
        epoch=int(reply[1]),
        sequence=int(reply[2]),
        left_ms=int(reply[3]),
        body=reply[4],
        fields={reply[i].decode(): reply[i + 1] for i in range(5, len(reply), 2)},
    )
