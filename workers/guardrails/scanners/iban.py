"""International bank account numbers: country, its length, and the checksum modulo 97 (ISO 13616, ISO 7064).

Looked for where two country letters stand before two digits, so prose without such a pair costs nothing.
"""

from __future__ import annotations

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Prepared

#: Length of an IBAN by country, in characters (SWIFT IBAN registry).
LENGTHS: dict[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
_JOINTS = frozenset(" -\u00a0\u2009\u202f\u2010\u2011")


def scan(prepared: Prepared) -> list[Finding]:
    """IBANs of the text, written together or in groups."""
    found: list[Finding] = []
    text = prepared.text
    for number in prepared.numbers:
        start = number.start - 2
        length = LENGTHS.get(text[start : number.start].upper(), 0) if start >= 0 else 0
        if not length or _word(prepared.char(start - 1)):
            continue
        compact, end = _collect(text, start, length)
        if len(compact) == length and not _word(prepared.char(end)) and checksum(compact):
            found.append(Finding(start, end, "iban", f"iban/{compact[:2]}", 0.98))
    return found


def _word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _collect(text: str, start: int, length: int) -> tuple[str, int]:
    """Up to `length` letters and digits from `start`, skipping single joints; and where they end."""
    kept: list[str] = []
    index = start
    while len(kept) < length and index < len(text):
        char = text[index]
        if char.isascii() and char.isalnum():
            kept.append(char)
        elif char not in _JOINTS or text[index - 1] in _JOINTS:
            break
        index += 1
    return "".join(kept).upper(), index


def checksum(compact: str) -> bool:
    """Whether an upper-case IBAN without blanks leaves remainder 1 modulo 97."""
    if not compact[2:4].isdigit():
        return False
    return int("".join([str(int(char, 36)) for char in compact[4:] + compact[:4]])) % 97 == 1
