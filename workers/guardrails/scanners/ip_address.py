"""IP addresses: four decimal octets, or any text form of IPv6 (RFC 4291 section 2.2) with at least three groups.

Loopback, unspecified, broadcast and masks name no machine of anybody and are left alone; so are version numbers and
longer dotted figures, and the `::` of programming languages.
"""

from __future__ import annotations

import ipaddress
import re

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Number, Prepared

#: Starts at a group of hexadecimal digits before its colon; each piece is bounded, so the walk stays linear.
_V6 = re.compile(r"(?:[0-9A-Fa-f]{1,4}|:):[0-9A-Fa-f:]{1,40}(?:\.[0-9]{1,3}){0,3}")
#: A mere v stands close to its number, or it is any letter.
_NO_ADDRESS = re.compile(r"\b(?:(?:version|ver|release|firmware|build|section|chapter|clause)[ .:=]{0,3}|v[ .:=]?)$")
_LOOK_BACK = 14


def scan(prepared: Prepared) -> list[Finding]:
    """Addresses of the text, version 4 first."""
    found: list[Finding] = []
    for number in prepared.numbers:
        if number.end - number.start >= 7 and len(number.groups) >= 4:
            found.extend(_in_number(prepared, number))
    if prepared.text.count(":") >= 2:
        found.extend(_version_6(prepared))
    return found


def _in_number(prepared: Prepared, number: Number) -> list[Finding]:
    """Dotted runs of exactly four groups."""
    text, groups = prepared.text, number.groups
    found: list[Finding] = []
    first = 0
    for index in range(len(groups)):
        if index + 1 < len(groups) and text[groups[index][1] : groups[index + 1][0]] == ".":
            continue
        if index - first == 3 and _is_version_4(prepared, groups[first][0], groups[index][1]):
            found.append(Finding(groups[first][0], groups[index][1], "ip", "ip/v4", 0.9))
        first = index + 1
    return found


def _is_version_4(prepared: Prepared, start: int, end: int) -> bool:
    left, right = prepared.char(start - 1), prepared.char(end)
    if left.isalnum() or left in ("_", "-", ".", "+") or right.isalpha() or right == "_":
        return False
    if right in ("-", ".") and prepared.char(end + 1).isalnum():
        return False
    if _NO_ADDRESS.search(prepared.before(start, _LOOK_BACK)):
        return False
    return _worth(prepared.text[start:end])


def _version_6(prepared: Prepared) -> list[Finding]:
    found: list[Finding] = []
    for match in _V6.finditer(prepared.text):
        start, end = match.span()
        if match[0].endswith(":") and not match[0].endswith("::"):
            end -= 1
        left, right = prepared.char(start - 1), prepared.char(end)
        if left.isalnum() or left in ("_", ":", ".") or right.isalnum() or right == "_":
            continue
        candidate = prepared.text[start:end]
        if sum(1 for group in candidate.split(":") if group) >= 3 and _worth(candidate):
            found.append(Finding(start, end, "ip", "ip/v6", 0.9))
    return found


def _worth(candidate: str) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or candidate.startswith("255."))
