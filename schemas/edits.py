"""Edits are applied here, by one pure function, for every room that needs the edited text.

Overlapping edits of one string merge to their union (the replacement of the earliest, then longest, names it);
application goes from right to left, so that earlier positions stay true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.verdicts import Edit


def merge(edits: Sequence[Edit]) -> list[Edit]:
    """The edits of ONE string as disjoint spans, by position. Touching spans stay apart."""
    merged: list[Edit] = []
    for edit in sorted(edits, key=lambda item: (item.start, -item.end, item.kind)):
        if merged and edit.start < merged[-1].end:
            last = merged[-1]
            if edit.end > last.end:
                merged[-1] = Edit(
                    digest=last.digest,
                    pointer=last.pointer,
                    start=last.start,
                    end=edit.end,
                    replacement=last.replacement,
                    kind=last.kind,
                )
        else:
            merged.append(edit)
    return merged


def apply_edits(body: Any, edits: Sequence[Edit]) -> Any:
    """`body` with every edited string replaced; the given value is changed in place and returned.

    LookupError or ValueError when a pointer leads nowhere or a span lies outside its string."""
    by_pointer: dict[str, list[Edit]] = {}
    for edit in edits:
        by_pointer.setdefault(edit.pointer, []).append(edit)
    for pointer, group in by_pointer.items():
        holder, key = _resolve(body, pointer)
        holder[key] = edit_text(holder[key], group)
    return body


def edit_text(text: str, edits: Sequence[Edit]) -> str:
    """One string with its edits applied."""
    if not isinstance(text, str):
        raise ValueError("an edit points at something that is not text")
    for edit in reversed(merge(edits)):
        if not 0 <= edit.start <= edit.end <= len(text):
            raise ValueError(f"edit {edit.start}..{edit.end} lies outside a text of {len(text)}")
        text = text[: edit.start] + edit.replacement + text[edit.end :]
    return text


def _resolve(body: Any, pointer: str) -> tuple[Any, Any]:
    """The container and key that an RFC 6901 pointer names. LookupError when it leads nowhere."""
    holder: Any = {"": body}
    key: Any = ""
    for part in pointer.split("/")[1:]:
        holder = holder[key]
        token = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(holder, dict) and not (isinstance(holder, list) and token.isdecimal()):
            raise LookupError(f"the pointer {pointer!r} leads nowhere")
        key = int(token) if isinstance(holder, list) else token
    holder[key]
    return holder, key
