"""Normalisation against disguise, with the way back to the original positions.

A fold is a table from one code point to its plain form (possibly nothing, possibly several characters), so folding is
one `str.translate` and positions are found again by walking the same table, which happens only after a match.
Every fold does NFKD without combining marks, case folding and removal of invisible characters; on top of that

- `LETTERS` keeps letters only: spacing, punctuation and line breaks inside a phrase disappear;
- `LEET` does the same after reading 0 1 3 4 5 7 @ $ as the letters they stand for;
- `WORDS` keeps letters and digits and turns everything else into one blank, for whole-word search.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from itertools import accumulate

_MEMORY = 20_000  # code points a table remembers; texts with more different ones are folded without memory

#: Letters of other scripts that look like Latin ones (Unicode confusables, the Cyrillic, Greek and IPA part).
_LOOKALIKES: dict[int, str] = {
    ord(twin): latin
    for latin, twins in (
        ("a", "аαɑ"), ("b", "ь"), ("c", "сϲ"), ("d", "ԁ"), ("e", "еєε"), ("g", "ɡ"), ("h", "һ"), ("i", "іιɩıɪ"),
        ("j", "ј"), ("k", "кκ"), ("l", "ӏ"), ("m", "м"), ("n", "пη"), ("o", "оοσ"), ("p", "рρ"), ("q", "ԛ"),
        ("r", "гʀ"), ("s", "ѕ"), ("t", "тτ"), ("u", "υʋ"), ("v", "ѵν"), ("w", "ԝω"), ("x", "хχ"), ("y", "уγ"),
    )
    for twin in twins
}  # fmt: skip
_LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}


def _plain(char: str) -> str:
    """Compatibility form, no marks, no invisible characters, lower case, Latin look-alikes as Latin."""
    parts = unicodedata.normalize("NFKD", char)
    kept = [part for part in parts if unicodedata.category(part) not in ("Mn", "Me", "Cf")]
    return "".join(kept).casefold().translate(_LOOKALIKES)


def _letters(char: str) -> str:
    return "".join([part for part in _plain(char) if part.isalpha()])


def _leet(char: str) -> str:
    return "".join([read for part in _plain(char) if (read := _LEET.get(part, part)).isalpha()])


def _words(char: str) -> str:
    plain = _plain(char)
    if char and not plain:
        return ""
    return "".join([part if part.isalnum() else " " for part in plain])


class Fold(dict[int, str | None]):
    """A translation table that fills itself; `folded = text.translate(fold)`.

    What disappears is None rather than an empty text: only then does str.translate take its fast way (20 times)."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str | None:
        plain = self._rule(chr(code)) or None
        if len(self) < _MEMORY:
            self[code] = plain
        return plain

    def ends(self, text: str) -> list[int]:
        """For every character of `text`, the folded length up to and including it: the way back for spans."""
        return list(accumulate([len(self[ord(char)] or ()) for char in text]))


LETTERS = Fold(_letters)
LEET = Fold(_leet)
WORDS = Fold(_words)
