"""Texts made to be slow: the steps of a scan grow with the text and no faster.

Steps are counted, not timed: every Python and C call that the scanners make. What happens inside one regular
expression is not counted; a pattern that backtracks without bound on these texts would not come back within the
suite's time limit.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from workers.guardrails.scanners import scan
from workers.guardrails.scanners.person_names import chunks

HOSTILE = {
    "letters": "a",
    "digits": "4",
    "digit blank": "1 ",
    "digit dash": "1-",
    "dotted": "1.",
    "card groups": "4111 ",
    "ssn groups": "123-45-",
    "ats": "@",
    "almost mails": "a@b.",
    "dots and ats": "a.a@",
    "colons": "1:",
    "hex colons": "abcd:",
    "iban heads": "DE12 ",
    "plus": "+1",
    "parentheses": "(1) ",
    "key words": "key=",
    "password is": "password is ",
    "token colon": "token:\"'",
    "key prefixes": "sk-ant-",
    "jwt heads": "eyJa.",
    "jwt body": "eyJ" + "a" * 50,
    "pem heads": "-----BEGIN RSA PRIVATE KEY-----",
    "login": "://a:b",
    "ignore": "ignore all ",
    "fill": "all the ",
    "reveal": "print your system prompt ",
    "persona": "from now on ",
    "leet": "1gn0r3 ",
    "base64": "aWdub3Jl",
    "base64 words": "aWdub3JlIGFsbCBwcmV2aW91cyBpbnN0cnVjdGlvbnM= ",
    "accents": "e\u0301",
    "zero width": "\u200b",
    "ligatures": "ﷺ",
    "markers": "<|im_start|>",
    "quotes": "\"'",
    "backslashes": "\\",
    "blanks": " ",
    "line feeds": "\n",
    "underscores": "_",
    "hr": "hr_aaaa_",
}


def steps(text: str) -> int:
    """Calls made while scanning."""
    count = 0

    def counter(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counter)
    try:
        scan(text, banned_words=("banned", "all the banned"))
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_steps_grow_no_faster_than_the_text(name: str) -> None:
    unit = HOSTILE[name]
    small, large = unit * (8_000 // len(unit)), unit * (32_000 // len(unit))
    assert steps(large) <= 5 * steps(small) + 2_000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_is_scanned_to_its_end(name: str) -> None:
    unit = HOSTILE[name]
    text = unit * (1_000_000 // len(unit)) + " canary@example.com"
    assert any(text[item.start : item.end].endswith("canary@example.com") for item in scan(text, {"email", "secrets"}))


@pytest.mark.parametrize(
    "name", ["fill", "ignore", "leet", "reveal", "accents", "base64 words", "digit dash", "letters"]
)
def test_a_megabyte_passes_all_scanners(name: str) -> None:
    unit = HOSTILE[name]
    scan(unit * (1_000_000 // len(unit)), banned_words=("banned",))


def test_chunks_cover_a_text_and_are_bounded() -> None:
    for text in ("", "short", "word " * 5_000, "x" * 9_999):
        pieces = chunks(text)
        assert all(text[offset:].startswith(piece) and len(piece) <= 2000 for offset, piece in pieces)
        covered = {place for offset, piece in pieces for place in range(offset, offset + len(piece))}
        assert covered == set(range(len(text)))
