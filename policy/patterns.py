"""Names with `*` (any run of characters, also none), for models in keys and in price lists.

Case matters and nothing else is special. Linear in the name's length whatever the pattern, so a pattern typed by an
operator can't be made slow by a name typed by a client.
"""

from __future__ import annotations

from collections.abc import Iterable


def matches(pattern: str, name: str) -> bool:
    """Whether the whole of `name` fits `pattern`."""
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, tail = rest
    if len(name) < len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
        return False
    at, end = len(head), len(name) - len(tail)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def any_matches(patterns: Iterable[str], name: str) -> bool:
    """Whether at least one pattern fits."""
    return any(matches(pattern, name) for pattern in patterns)


def literal_length(pattern: str) -> int:
    """How specific a pattern is: its characters that are not `*`. An exact name beats any pattern of its length."""
    return 2 * (len(pattern) - pattern.count("*")) + ("*" not in pattern)
