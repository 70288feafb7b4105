"""Words and phrases that a policy bans: whole words, after normalisation, whatever their number.

Both sides are folded the same way (case, accents, full-width and look-alike letters, invisible characters), then
compared word by word: the cost grows with the text, not with the list.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.fold import WORDS
from workers.guardrails.scanners.prepared import Prepared

_WORD = re.compile(r"\S+")
Phrases = dict[str, list[tuple[str, ...]]]


def scan(prepared: Prepared, banned: tuple[str, ...]) -> list[Finding]:
    """Every banned word or phrase of the text."""
    if not banned:
        return []
    folded = prepared.text.translate(WORDS)
    phrases = _phrases(banned)
    words = [(match[0], match.start()) for match in _WORD.finditer(folded)]
    spans = [span for index in range(len(words)) if (span := _at(words, index, phrases))]
    if not spans:
        return []
    ends = WORDS.ends(prepared.text)
    return [Finding(*_back(ends, start, end), "banned_words", "banned_words", 1.0) for start, end in spans]


@lru_cache(maxsize=64)
def _phrases(banned: tuple[str, ...]) -> Phrases:
    """First word -> the phrases that begin with it, longest first."""
    found: Phrases = {}
    for words in filter(None, _folded(banned)):
        found.setdefault(words[0], []).append(words)
    for choices in found.values():
        choices.sort(key=len, reverse=True)
    return found


def _folded(banned: Iterable[str]) -> list[tuple[str, ...]]:
    return [tuple(phrase.translate(WORDS).split()) for phrase in banned]


def _at(words: list[tuple[str, int]], index: int, phrases: Phrases) -> tuple[int, int] | None:
    for phrase in phrases.get(words[index][0], ()):
        if tuple(word for word, _ in words[index : index + len(phrase)]) == phrase:
            last, start = words[index + len(phrase) - 1]
            return words[index][1], start + len(last)
    return None


def _back(ends: list[int], start: int, end: int) -> tuple[int, int]:
    """Folded span -> span of the text, by the table of `Fold.ends`."""
    return bisect_right(ends, start), bisect_left(ends, end) + 1
