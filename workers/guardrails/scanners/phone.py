"""Telephone numbers: international with `+` or `00`, North American in its groups, national ones with a trunk 0.

A number must look written as a telephone number (plus sign, groups) or be announced by a word; digits glued to
letters, hyphenated codes, decimals, dates, and figures introduced as order, invoice or ticket numbers are none.
"""

from __future__ import annotations

import re

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Number, Prepared

_EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext\.?|extension|durchwahl)[ .]{0,2}[0-9]{1,6}(?![0-9A-Za-z])", re.IGNORECASE)
_ANNOUNCE = re.compile(r"phone|\btel\b|mobile|\bcell|call|whatsapp|\bfax\b|\bsms\b|telefon|handy|dial|text me|\bring ")
_OTHER = re.compile(
    r"(?:order|invoice|ticket|tracking|ref|reference|case|account|acct|isbn|issn|sku|serial|part|model|version|build|"
    r"id|no|nr|number|po|rfc|issue|bug|pin|patent|port|doi|routing|passport|policy|claim|batch|lot|zip|code)"
    r"[ .:#=]{0,4}$|#$|number is $"
)
_LOOK_BACK = 28
_CLOSE = frozenset("-./ \u00a0\u2009\u202f\u2010\u2011\u2012\u2013") | {") ", ")", ")-", " - ", " (", "-(", "("}
_Span = tuple[int, int, str, float]


def scan(prepared: Prepared) -> list[Finding]:
    """Telephone numbers of the text, in order."""
    found: list[Finding] = []
    for number in prepared.numbers:
        if number.end - number.start < 7:
            continue
        for start, end, name, sure in _in_number(prepared, number):
            extension = _EXTENSION.match(prepared.text, end, end + 24)
            found.append(Finding(start, extension.end() if extension else end, "phone", f"phone/{name}", sure))
    return found


def _in_number(prepared: Prepared, number: Number) -> list[_Span]:
    start = _opened(prepared, number.start)
    if prepared.char(start - 1) == "+":
        return _international(prepared, number, start - 1)
    if not _free(prepared, start, number.end):
        return []
    groups = number.groups
    first = prepared.text[groups[0][0] : groups[0][1]]
    total = sum(high - low for low, high in groups)
    if first.startswith("00") and 11 <= total <= 17 and not _introduced(prepared, start):
        return [(start, number.end, "international", 0.8)]
    if _national(prepared, number, total) and not _introduced(prepared, start):
        return [(start, number.end, "national", 0.7)]
    american = _north_american(prepared, number)
    return american or _announced(prepared, number, start, total)


def _opened(prepared: Prepared, start: int) -> int:
    """A parenthesis before the area code belongs to the number."""
    return start - 1 if prepared.char(start - 1) == "(" else start


def _free(prepared: Prepared, start: int, end: int) -> bool:
    left, right = prepared.char(start - 1), prepared.char(end)
    if left.isalnum() or (left and left in "_-./=#$€£+%&@~"):
        return False
    if right in ("x", "X"):
        return True
    if right.isalnum() or (right and right in "_%€£$="):
        return False
    return not (right in ("-", ".", "/") and prepared.char(end + 1).isalnum())


def _introduced(prepared: Prepared, start: int) -> bool:
    """The words before say that this is some other number."""
    before = prepared.before(start, _LOOK_BACK)
    return bool(_OTHER.search(before)) and not _ANNOUNCE.search(before)


def _international(prepared: Prepared, number: Number, plus: int) -> list[_Span]:
    """`+` and 8 to 15 digits (E.164); exactly 11 after +1."""
    if prepared.char(plus - 1).isalnum() or prepared.text[number.start] == "0":
        return []
    limit = 11 if prepared.text[number.start] == "1" else 15
    total, end = 0, number.start
    for low, high in number.groups:
        if total + high - low > limit or prepared.text[end:low].count(".") + (high - low > 12) > 1:
            break
        total, end = total + high - low, high
    if not (total == 11 if limit == 11 else total >= 8) or (prepared.char(end).isalpha() and prepared.char(end) != "x"):
        return []
    return [(plus, end, "international", 0.9)]


def _national(prepared: Prepared, number: Number, total: int) -> bool:
    """A trunk 0 with its area in 2 to 6 digits, blanks, hyphens or a slash between 2 to 5 groups."""
    groups = number.groups
    if prepared.text[groups[0][0]] != "0" or prepared.text[groups[0][0] + 1 : groups[0][0] + 2] == "0":
        return False
    if not (9 <= total <= 12 and 2 <= len(groups) <= 6 and 2 <= groups[0][1] - groups[0][0] <= 6):
        return False
    if total < 10 and len(groups) > 3:
        return False
    joints = {prepared.text[groups[i][1] : groups[i + 1][0]] for i in range(len(groups) - 1)}
    return joints <= _CLOSE and len(joints) <= 2


def _north_american(prepared: Prepared, number: Number) -> list[_Span]:
    """Groups 3-3-4, perhaps after a 1, whose area begins with 2 to 9."""
    text, groups = prepared.text, number.groups
    found: list[_Span] = []
    for index in range(len(groups) - 2):
        widths = [high - low for low, high in groups[index : index + 3]]
        low, end = groups[index][0], groups[index + 2][1]
        if widths != [3, 3, 4] or text[low] in "01":
            continue
        start = groups[index - 1][0] if index and text[groups[index - 1][0] : groups[index - 1][1]] == "1" else low
        start = _opened(prepared, start)
        if _joined(text, groups, index) and _free(prepared, start, end) and not _introduced(prepared, start):
            found.append((start, end, "north_american", 0.85))
    return found


def _joined(text: str, groups: tuple[tuple[int, int], ...], index: int) -> bool:
    return all(text[groups[i][1] : groups[i + 1][0]] in _CLOSE for i in (index, index + 1))


def _announced(prepared: Prepared, number: Number, start: int, total: int) -> list[_Span]:
    """7 to 13 digits in any grouping after a word such as "call" or "tel", unless another word claims them."""
    if not 7 <= total <= 13 or "." in prepared.text[number.start : number.end]:
        return []
    before = prepared.before(start, _LOOK_BACK)
    if not _ANNOUNCE.search(before) or re.search(r"(?:order|invoice|ticket|ref|case|id|isbn|sku)[ .:#=]{0,4}$", before):
        return []
    return [(start, number.end, "announced", 0.6)]
