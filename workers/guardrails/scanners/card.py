"""Payment card numbers: 13 to 19 digits of a known issuer that pass the Luhn check (ISO/IEC 7812-1, annex B).

Digits stand together or in the groupings that cards are printed in, with one blank or hyphen between groups.
A number inside a longer one (an order number, a decimal, an API key) is none.
"""

from __future__ import annotations

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Number, Prepared

_LAYOUTS: tuple[tuple[int, ...], ...] = (
    (4, 4, 4, 4, 3),
    (4, 4, 4, 4),
    (4, 6, 5),
    (4, 6, 4),
    (4, 4, 4, 1),
    (6, 13),
    (8, 8),
    (1,) * 16,
)
_JOINTS = frozenset(" -\u00a0\u2009\u202f\u2010\u2011\u2012\u2013")
_DOUBLED = tuple(sum(divmod(2 * digit, 10)) for digit in range(10))


def scan(prepared: Prepared) -> list[Finding]:
    """Cards of the text, longest reading first."""
    found: list[Finding] = []
    for number in prepared.numbers:
        if number.end - number.start >= 13:
            found.extend(_in_number(prepared, number))
    return found


def _in_number(prepared: Prepared, number: Number) -> list[Finding]:
    found: list[Finding] = []
    index = 0
    while index < len(number.groups):
        taken, name = _card_at(prepared, number, index)
        if taken:
            found.append(Finding(number.groups[index][0], number.groups[index + taken - 1][1], "card", name, 0.95))
        index += taken or 1
    return found


def _card_at(prepared: Prepared, number: Number, index: int) -> tuple[int, str]:
    """How many groups from `index` on are a card, and of whom; (0, "") when none."""
    groups = number.groups
    width = groups[index][1] - groups[index][0]
    if width >= 13:
        return _judge(prepared, number, index, 1)
    for layout in _LAYOUTS:
        if width == layout[0] and _fits(prepared.text, groups, index, layout):
            taken, name = _judge(prepared, number, index, len(layout))
            if taken:
                return taken, name
    return 0, ""


def _fits(text: str, groups: tuple[tuple[int, int], ...], index: int, layout: tuple[int, ...]) -> bool:
    if index + len(layout) > len(groups):
        return False
    for offset, width in enumerate(layout):
        start, end = groups[index + offset]
        if end - start != width:
            return False
        if offset and text[groups[index + offset - 1][1] : start] not in _JOINTS:
            return False
    return True


def _judge(prepared: Prepared, number: Number, index: int, taken: int) -> tuple[int, str]:
    start, end = number.groups[index][0], number.groups[index + taken - 1][1]
    digits = "".join([prepared.text[low:high] for low, high in number.groups[index : index + taken]])
    name = issuer(digits)
    if name and _free(prepared, start, end) and luhn(digits):
        return taken, f"card/{name}"
    return 0, ""


def _free(prepared: Prepared, start: int, end: int) -> bool:
    """Not glued to letters, not the inside of a longer figure or of a decimal."""
    left, right = prepared.char(start - 1), prepared.char(end)
    if left.isalnum() or right.isalnum() or left == "_" or right == "_":
        return False
    if left in ("-", ".") and prepared.char(start - 2).isdigit():
        return False
    return not (right in ("-", ".") and prepared.char(end + 1).isdigit())


def luhn(digits: str) -> bool:
    """Whether the last digit of `digits` (ASCII) is the right check digit."""
    values = [ord(char) - 48 for char in reversed(digits)]
    return (sum(values[::2]) + sum([_DOUBLED[value] for value in values[1::2]])) % 10 == 0


def issuer(digits: str) -> str:
    """The network whose range and lengths fit, or an empty text."""
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4" and size in (13, 16, 19):
        return "visa"
    if size == 16 and (51 <= two <= 55 or 2221 <= four <= 2720):
        return "mastercard"
    if size == 15 and two in (34, 37):
        return "amex"
    if 16 <= size <= 19 and (four == 6011 or two == 65 or 6440 <= four <= 6499):
        return "discover"
    if 14 <= size <= 19 and (3000 <= four <= 3059 or two in (36, 38, 39)):
        return "diners"
    if 16 <= size <= 19 and 3528 <= four <= 3589:
        return "jcb"
    if 16 <= size <= 19 and (two == 62 or two == 81):
        return "unionpay"
    if 13 <= size <= 19 and (two == 50 or 56 <= two <= 69):
        return "maestro"
    return ""
