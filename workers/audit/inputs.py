"""What is kept of a request beside its answer: never more of its text than the guards let through. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from schemas.edits import apply_edits
from schemas.verdicts import Edit
from workers.audit.opening import ACCEPTANCE, TIMES, Opened

#: A body -> what is kept of it. ValueError or LookupError when an edit does not fit.
Rewrite = Callable[[bytes], bytes]
#: Fields whose texts say nothing of what was asked.
_PLAIN = ("model", "previous_response_id")


def rewriting(opened: Opened) -> Rewrite | None:
    """What is to be done to the body of an ended run; None = it is kept as it lies. Of a run that guards refused, that
    ended before all of them had answered, or with a verdict that is not believed, no text is kept."""
    unread = set(opened.unverified) - {ACCEPTANCE, TIMES}
    if not opened.times.cleared or unread:
        return without_texts
    edits = [edit for verdict in opened.verdicts.values() for edit in verdict.edits]
    return partial(edited, edits) if edits else None


def edited(edits: list[Edit], body: bytes) -> bytes:
    """The body as the engine saw it."""
    return orjson.dumps(apply_edits(orjson.loads(body), edits))


def without_texts(body: bytes) -> bytes:
    """Numbers, flags, and whom it asked."""
    fields: dict[str, Any] = orjson.loads(body)
    kept = {name: value for name, value in fields.items() if name in _PLAIN or isinstance(value, int | float)}
    return orjson.dumps(kept)
