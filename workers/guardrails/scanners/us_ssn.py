"""US social security numbers: three groups 3-2-4 outside the ranges that are never issued.

Area 000, 666 and 900-999, group 00 and serial 0000 are invalid (SSA randomization rules of 2011); two numbers printed
in advertisements are void. Nine digits in one piece count only after words that announce them.
"""

from __future__ import annotations

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Number, Prepared

_VOID = frozenset({"078051120", "219099999"})
_HYPHENS = frozenset("-\u2010\u2011\u2012\u2013")
_BLANKS = frozenset(" \u00a0\u2009\u202f")
_WORDS = ("ssn", "social security", "social sec", "soc sec", "social insurance")
_LOOK_BACK = 40  # characters searched for the announcing words


def scan(prepared: Prepared) -> list[Finding]:
    """Social security numbers of the text."""
    found: list[Finding] = []
    for number in prepared.numbers:
        if number.end - number.start >= 9:
            found.extend(_in_number(prepared, number))
    return found


def _in_number(prepared: Prepared, number: Number) -> list[Finding]:
    found: list[Finding] = []
    for index, (start, end) in enumerate(number.groups):
        if end - start == 9:
            if _issued(prepared.text[start:end]) and _free(prepared, start, end) and _announced(prepared, start):
                found.append(Finding(start, end, "us_ssn", "us_ssn/announced", 0.8))
        elif end - start == 3 and index + 2 < len(number.groups):
            last = number.groups[index + 2]
            sure = _grouped(prepared, number, index)
            if sure:
                found.append(Finding(start, last[1], "us_ssn", "us_ssn/grouped", sure))
    return found


def _grouped(prepared: Prepared, number: Number, index: int) -> float:
    """How sure we are of the three groups from `index` on; 0 when they are none."""
    (a, b), (c, d), (e, f) = number.groups[index : index + 3]
    text = prepared.text
    if d - c != 2 or f - e != 4 or not _free(prepared, a, f) or not _issued(text[a:b] + text[c:d] + text[e:f]):
        return 0.0
    joints = (text[b:c], text[d:e])
    if joints[0] in _HYPHENS and joints[1] in _HYPHENS:
        return 0.9
    return 0.7 if joints[0] in _BLANKS and joints[1] in _BLANKS else 0.0


def _free(prepared: Prepared, start: int, end: int) -> bool:
    left, right = prepared.char(start - 1), prepared.char(end)
    if left.isalnum() or right.isalnum() or left in ("-", "_", ".", "+") or right == "_":
        return False
    return not (right in ("-", ".") and prepared.char(end + 1).isalnum())


def _issued(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
        return False
    return digits not in _VOID


def _announced(prepared: Prepared, start: int) -> bool:
    before = prepared.before(start, _LOOK_BACK)
    return any(word in before for word in _WORDS)
