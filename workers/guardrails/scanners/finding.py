"""What every scanner returns: where, what kind, found by whom, how sure. Never the matched text itself.

Positions are code points of the text that was scanned, half open, so `text[start:end]` is the match.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["secrets", "card", "iban", "us_ssn", "email", "phone", "ip", "injection", "banned_words", "persons"]

#: Kinds the family `rules` looks for, in the order in which a report names them.
RULE_KINDS: tuple[Kind, ...] = (
    "secrets",
    "card",
    "iban",
    "us_ssn",
    "email",
    "phone",
    "ip",
    "injection",
    "banned_words",
)
KINDS: tuple[Kind, ...] = (*RULE_KINDS, "persons")


class Finding(NamedTuple):
    """One match. `scanner` names the rule within the kind ("card/visa"); `confidence` is 0..1."""

    start: int
    end: int
    kind: Kind
    scanner: str
    confidence: float
