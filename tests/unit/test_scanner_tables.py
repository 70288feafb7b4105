"""Scanners of personal data: what each must find, exactly, and what looks like it and is none.

A row is a text with the expected match in {braces}; a text without braces must give nothing of that kind.
"""

from __future__ import annotations

import re

import pytest

from workers.guardrails.scanners import Kind, scan

CASES: dict[Kind, list[str]] = {
    "email": [
        "write to {john.doe+news@example.co.uk}, please",
        "<{a@b.io}>",
        "mailto:{jane@firm.example}?subject=x",
        'user="{first_last@sub.domain.org}"',
        "https://x.example/?mail={jane@firm.example}",
        "Kontakt: {jürgen@müller.de}.",
        "two: {a1@x.com};{b2@y.org}",
        "git clone git@github.com:org/repo.git",
        "icon@2x.png and npm i left@1.2.3",
        "postgres://user:pa55word@db.example.com/x",
        "@app.route('/x')",
        "meet @ noon.today",
        "user@localhost",
        "a @ b.com",
        "price@@@@x",
    ],
    "phone": [
        "call {+49 30 123456} now",
        "{+1 (415) 555-2671}",
        "{(555) 123-4567}",
        "{555-123-4567}",
        "{555.123.4567 x89}",
        "{1-800-555-0199}",
        "London {020 7946 0958}",
        "{+33 6 12 34 56 78}",
        "{0049 30 1234567}",
        "mobil {0176/12345678}",
        "my phone is {5551234567}",
        "order number 555-123-4567",
        "Ticket #555-123-4567",
        "sk-1234567890abcdef1234567890",
        "id=4155552671",
        "2024-01-02 10:15:30",
        "2024-05-06 2024-05-07",
        "ISBN 978-0-306-40615-7",
        "3.141592653589793",
        "192.168.100.200",
        "550e8400-e29b-41d4-a716-446655440000",
        "1234567890",
        "version 10.15.7, build 19H2",
        "x = 555-1234",
        "€ 1.234.567,89",
        "lines 100-200 300-400",
    ],
    "card": [
        "pay with {4111 1111 1111 1111} today",
        "{4111-1111-1111-1111}",
        "{5500005555555559}",
        "amex {3782 822463 10005}",
        "{6011111111111117},12/27,123",
        "{3530111333300000}",
        "card: {4111 1111 1111 1111} 12/27 999",
        "4111111111111112",
        "order 41111111111111111111",
        "sk4111111111111111",
        "0.4111111111111111",
        "1234567812345670",
        "4111 1111 1111 111",
        "tracking 4111_1111_1111_1111",
    ],
    "iban": [
        "{DE89 3704 0044 0532 0130 00}",
        "to {GB82WEST12345698765432}.",
        "{nl91abna0417164300}",
        "IBAN:{FR14 2004 1010 0505 0001 3M02 606}",
        "{CH93-0076-2011-6238-5295-7}",
        "DE89 3704 0044 0532 0130 01",
        "XX89370400440532013000",
        "DE8937040044053201300",
        "ADE89370400440532013000",
        "IN20 is not one, nor is DE12",
    ],
    "us_ssn": [
        "ssn {123-45-6789}",
        "{123 45 6789}",
        "his social security number is {123456789}",
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "123-00-4567",
        "123-45-0000",
        "078-05-1120",
        "1-123-45-6789",
        "123-45-6789-0",
        "part 123456789",
        "123-456-789",
    ],
    "ip": [
        "host {192.168.1.10}:8080",
        "{8.8.8.8}/32",
        "{2001:db8::1} up",
        "[{fe80::1ff:fe23:4567:890a}]:443",
        "{2001:0db8:85a3:0000:0000:8a2e:0370:7334}",
        "127.0.0.1 and ::1 and 0.0.0.0",
        "mask 255.255.255.0",
        "version 1.2.3.4",
        "1.2.3.4.5",
        "v1.2.3.4",
        "v 1.2.3.4",
        "V  {203.0.113.77}",
        "300.1.1.1",
        "at 12:30:45 in std::vector<int> a::b",
        "ratio 1:2:3",
        "MAC 00:1A:2B:3C:4D:5E",
    ],
}
ROWS = [(kind, row) for kind, rows in CASES.items() for row in rows]


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=[f"{kind}-{row}" for kind, row in ROWS])
def test_a_scanner_finds_what_is_in_braces_and_nothing_else(kind: Kind, row: str) -> None:
    expected = re.findall(r"\{(.*?)\}", row)
    text = row.replace("{", "").replace("}", "")
    found = [text[item.start : item.end] for item in scan(text, {kind})]
    assert found == expected


def test_a_number_that_is_a_card_is_not_reported_as_a_phone_too() -> None:
    assert [item.kind for item in scan("call about card 4111 1111 1111 1111")] == ["card"]


def test_digits_inside_a_key_are_only_a_secret() -> None:
    key = "sk-proj-" + "4155552671abcd" * 3
    assert {item.kind for item in scan(f"phone key {key}")} == {"secrets"}


def test_findings_come_in_order_and_name_their_scanner() -> None:
    found = scan("a@b.io, 8.8.8.8, 4111111111111111")
    assert [(item.kind, item.scanner) for item in found] == [
        ("email", "email"),
        ("ip", "ip/v4"),
        ("card", "card/visa"),
    ]
    assert all(0 < item.confidence <= 1 for item in found)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("Project NIGHTFALL starts", ("project nightfall",), ["Project NIGHTFALL"]),
        ("a ｂａｄ word", ("bad",), ["ｂａｄ"]),
        ("so b\u200bad", ("bad",), ["b\u200bad"]),
        ("gut, schlécht!", ("schlecht",), ["schlécht"]),
        ("a\nbad\n  thing.", ("bad thing", "bad"), ["bad\n  thing"]),
        ("badly, forbad, bad_word", ("bad",), ["bad"]),
        ("nothing here", ("bad",), []),
    ],
)
def test_banned_words_are_whole_words_after_normalisation(
    text: str, words: tuple[str, ...], expected: list[str]
) -> None:
    found = scan(text, {"banned_words"}, words)
    assert [text[item.start : item.end] for item in found] == expected
