"""A text and the views of it that several scanners share, each made once and most only when somebody asks.

- `digits`: whether any ASCII digit occurs; a text without one is done with most scanners.
- `numbers`: runs of digits joined by the separators people type, cut into groups. Card, phone, SSN, IBAN and IPv4
  all start from these, so the text is walked once for the five of them.
- `long_words`: the words of 16 characters or more, joined by line feeds: every key and every encoded text has such
  a word, prose has few, so dozens of literals are looked for in a string that is nearly always empty.
- `lower`: the text in lower case; same length as the text only where `lower_aligned` says so.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

#: Longest word that prose is allowed to have before the key scanners look at it, in characters.
LONG_WORD = 16

#: Separators inside a written number: ASCII ones and the typographic blanks and hyphens of copied documents.
_SEPARATORS = r" ().\-/\u00a0\u2009\u202f\u2010\u2011\u2012\u2013"
_NUMBER = re.compile(rf"[0-9]+(?:[{_SEPARATORS}]{{1,3}}[0-9]+)*")
_LONG_NUMBER = 7  # characters; shorter ones can only begin an IBAN
_DIGITS = re.compile(r"[0-9]+")


class Number(NamedTuple):
    """Groups of digits standing close together: `groups[i]` is [start, end) in the text."""

    start: int
    end: int
    groups: tuple[tuple[int, int], ...]


class Prepared:
    """The text under scan with its lazily made views."""

    def __init__(self, text: str) -> None:
        self.text = text
        # Ten looks for a character take half as long as one for a class of characters.
        self.digits = True in [digit in text for digit in "0123456789"]
        #: Every number of seven characters or more, and every shorter one that follows a letter, in order.
        self.numbers: list[Number] = _numbers(text) if self.digits else []

    @cached_property
    def long_words(self) -> str:
        words = self.text.split()
        if max(map(len, words), default=0) < LONG_WORD:
            return ""
        return "\n".join([word for word in words if len(word) >= LONG_WORD])

    @cached_property
    def lower(self) -> str:
        """Lower case with every character in its place: the few that would change length stay as they are."""
        lowered = self.text.lower()
        if len(lowered) == len(self.text):
            return lowered
        return "".join([low if len(low := char.lower()) == 1 else char for char in self.text])

    def before(self, start: int, count: int) -> str:
        """Up to `count` lower-case characters that end at `start`: the words that introduce a number."""
        return self.lower[max(0, start - count) : start]

    def char(self, index: int) -> str:
        """The character at `index`, or an empty text outside of it."""
        return self.text[index] if 0 <= index < len(self.text) else ""


def _numbers(text: str) -> list[Number]:
    return [
        _number(text, start, end)
        for start, end in [match.span() for match in _NUMBER.finditer(text)]
        if end - start >= _LONG_NUMBER or text[start - 1 : start].isalpha()
    ]


def _number(text: str, start: int, end: int) -> Number:
    if end - start < _LONG_NUMBER:
        return Number(start, end, ((start, end),))
    return Number(start, end, tuple(match.span() for match in _DIGITS.finditer(text, start, end)))
