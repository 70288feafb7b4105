"""queries.sql, by name: QUERIES["find_key"]. Statements are written there and nowhere else; values are parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

_HEAD = re.compile(r"^-- (?P<name>[a-z_]+): (?P<what>.+)$", re.MULTILINE)


def parse(text: str) -> dict[str, str]:
    """Name -> statement, its description as a leading comment (so that server logs say which it was).

    ValueError when a name comes twice or a statement does not end in a semicolon."""
    heads = list(_HEAD.finditer(text))
    found: dict[str, str] = {}
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        statement = text[head.end() : following.start() if following else None].strip()
        if head["name"] in found or not statement.endswith(";"):
            raise ValueError(f"queries.sql: {head['name']} comes twice or has no semicolon at its end")
        found[head["name"]] = f"-- {head['name']}\n{statement.removesuffix(';')}"
    return found


QUERIES: Mapping[str, str] = MappingProxyType(parse((resources.files("storage") / "queries.sql").read_text()))
