"""What the accept script takes and says: a request that is to become a run, under an Idempotency-Key or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from runtime.names import once_key, prefix_of
from schemas.envelope import Signed
from schemas.ports import Mark


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the accept script stores."""

    run: str
    signed: Signed
    body: bytes
    deadline_ms: int
    checks_ms: int
    most_runs: int
    most_bytes: int
    families: Sequence[str]
    watcher: str
    policy: str
    key_id: str
    stream: bool
    keep_ms: int = 0
    keep_body: bool = False
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What a run with an Idempotency-Key is accepted under. life: which run of this key it would be, from 0. asked:
    the archive has been asked and has no answer."""

    marks: Sequence[Mark]
    life: int = 0
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of it.

    new, full: live runs now. watched: `run` is the one, and has this watcher now. other: the key came with another
    request. gone: `run` is the one, ended, and no longer here. again: try as `life`. unknown: only the archive can
    tell. ending: `run` is the one and is being cancelled; once it has ended the key is free."""

    state: str
    live: int = 0
    run: str = ""
    life: int = 0


#: What the script's first figure says.
_SAYS = ("full", "new", "watched", "other", "gone", "again", "unknown", "ending")


def keys_of(new: Acceptance, repeat: Repeat | None = None) -> tuple[str, ...]:
    """The script's KEYS."""
    p = prefix_of(new.run)
    keys = (f"{p}:run:{new.run}", f"{p}:body:{new.run}", f"{p}:live", f"{p}:bytes", f"{p}:requests")
    return keys if repeat is None else (*keys, f"{p}:once", *(once_key(p, mark.name) for mark in repeat.marks))


def args_of(new: Acceptance, repeat: Repeat | None = None) -> tuple[str | bytes | int, ...]:
    """The script's ARGV."""
    args = (
        new.run,
        new.signed.e,
        new.signed.s,
        new.body,
        new.deadline_ms,
        new.checks_ms,
        new.most_runs,
        new.most_bytes,
        " ".join(new.families),
        new.watcher,
        new.policy,
        new.key_id,
        int(new.stream),
        new.keep_ms or "",
        " ".join(_marks(new)) if new.keep_body or new.background else "",
    )
    if repeat is None:
        return args
    return (*args, repeat.life, "1" if repeat.asked else "", *(mark.asked for mark in repeat.marks))


def _marks(new: Acceptance) -> list[str]:
    """Fields of the run that are there or not."""
    return [name for name, has in (("keepbody", new.keep_body), ("background", new.background)) if has]


def read(reply: Sequence[Any]) -> Accepted:
    """The script's answer."""
    state = _SAYS[reply[0]]
    if state in ("new", "full"):
        return Accepted(state=state, live=int(reply[1]))
    if state == "again":
        return Accepted(state=state, life=int(reply[1]))
    return Accepted(state=state, run=reply[1].decode() if len(reply) > 1 else "")
