"""The scanners: pure functions from a text to findings, one kind per file, all linear in the text.

    secret.py          secrets        keys of known shape, private keys, JWTs, logins, random assignments
    card.py            card           issuer range, length, Luhn
    iban.py            iban           country, length, checksum modulo 97
    us_ssn.py          us_ssn         ranges that are issued
    email_address.py   email          around each @
    phone.py           phone          as written, never inside keys or order numbers
    ip_address.py      ip             version 4 and 6
    injection.py       injection      phrases on normalised text
    banned.py          banned_words   the policy's own list
    persons*.py        persons        names of people; a model in a child process

To add one: a file with `scan(prepared) -> list[Finding]`, its kind in finding.py, its line in `_SCANNERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from workers.guardrails.scanners import banned, card, email_address, iban, injection, ip_address, phone, secret, us_ssn
from workers.guardrails.scanners.finding import KINDS, RULE_KINDS, Finding, Kind
from workers.guardrails.scanners.prepared import Prepared

_SCANNERS: dict[Kind, Callable[[Prepared], list[Finding]]] = {
    "secrets": secret.scan,
    "card": card.scan,
    "iban": iban.scan,
    "us_ssn": us_ssn.scan,
    "email": email_address.scan,
    "phone": phone.scan,
    "ip": ip_address.scan,
    "injection": injection.scan,
}
#: A span that a scanner on the left has claimed is not reported again by one on the right.
_NUMERIC: tuple[Kind, ...] = ("secrets", "card", "iban", "us_ssn", "ip", "phone")


def scan(text: str, kinds: Collection[Kind] = RULE_KINDS, banned_words: tuple[str, ...] = ()) -> list[Finding]:
    """Findings of the wanted rule kinds, by position. A phone number inside a card or key is not reported."""
    prepared = Prepared(text)
    found: list[Finding] = []
    for kind, scanner in _SCANNERS.items():
        if kind in kinds:
            found.extend(scanner(prepared))
    if banned_words and "banned_words" in kinds:
        found.extend(banned.scan(prepared, banned_words))
    if len(found) > 1:
        found = _without_echoes(found)
        found.sort()
    return found


def _without_echoes(found: list[Finding]) -> list[Finding]:
    """Drops numbers that lie wholly inside a span of a surer kind; linear after the sort."""
    rank = {kind: place for place, kind in enumerate(_NUMERIC)}
    kept: list[Finding] = []
    holder: Finding | None = None
    for finding in sorted(found, key=lambda item: (item.start, -item.end, rank.get(item.kind, 99))):
        place = rank.get(finding.kind)
        if place is not None:
            if holder and finding.end <= holder.end and place > rank[holder.kind]:
                continue
            if holder is None or finding.end > holder.end or place <= rank[holder.kind]:
                holder = finding
        kept.append(finding)
    return kept


__all__ = ["KINDS", "RULE_KINDS", "Finding", "Kind", "scan"]
