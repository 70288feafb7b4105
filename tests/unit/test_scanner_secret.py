"""Credentials: made-up keys in every known shape are found whole; what only resembles them is left alone."""

from __future__ import annotations

import base64

import pytest

from workers.guardrails.scanners import scan
from workers.guardrails.scanners.secret import entropy, looks_random

B62 = "a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"
HEX = "0123456789abcdef"
JWT = "eyJ" + B62[:20] + ".eyJ" + B62[:30] + "." + B62
PEM = "-----BEGIN {0}PRIVATE KEY-----\nMIIEow{1}\n{1}==\n-----END {0}PRIVATE KEY-----"

KEYS = {
    "headrace": "hr_k3f9a1b2_" + B62 + "_" + HEX,
    "anthropic": "sk-ant-" + "api03-" + B62,
    "openai": "sk-" + B62[:32] + "9",
    "openai project": "sk-" + "proj-" + B62 + "_-" + B62,
    "openrouter": "sk-" + "or-v1-" + HEX * 4,
    "aws": "AKIA" + "IOSFODNN7ABCDEFG",
    "github": "ghp_" + B62,
    "github fine": "github_" + "pat_" + B62 + "_" + B62,
    "gitlab": "glpat-" + B62[:20],
    "slack": "xoxb-" + "123456789012-" + B62[:24],
    "google": "AIza" + B62[:35],
    "stripe": "sk_" + "live_" + B62[:24],
    "sendgrid": "SG." + B62[:22] + "." + B62 + B62[:7],
    "huggingface": "hf_" + B62[:34],
    "npm": "npm_" + B62,
    "groq": "gsk_" + B62 + B62[:16],
    "vault": "hvs." + B62,
    "azure": "AccountKey=" + B62 * 2 + "abc/+x==",
    "jwt": JWT,
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("around", ["{}", "use {} please", '{{"key": "{}"}}', "export X={};", "line\\n{}", "({})"])
def test_a_key_of_known_shape_is_found_whole(name: str, around: str) -> None:
    key = KEYS[name]
    text = around.format(key)
    start = text.index(key)
    covered = {place for item in scan(text, {"secrets"}) for place in range(item.start, item.end)}
    assert covered >= set(range(start, start + len(key)))


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_is_found_from_its_first_line_to_its_last(kind: str) -> None:
    block = PEM.format(kind, B62)
    text = f"here:\n{block}\nthanks"
    assert [text[item.start : item.end] for item in scan(text, {"secrets"})] == [block]


def test_a_private_key_cut_off_is_found_as_far_as_it_goes() -> None:
    text = PEM.format("RSA ", B62).split("-----END")[0]
    (found,) = [item for item in scan(text, {"secrets"}) if item.scanner == "secrets/private_key"]
    assert (found.start, found.end) == (0, len(text))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password=Hunter2!x", "Hunter2!x"),
        ('"db_password": "Tr0ub4dor&3"', "Tr0ub4dor&3"),
        ("API_KEY: 'a8f5f167f44f4964e6c998dee827110c'", "a8f5f167f44f4964e6c998dee827110c"),
        ("Authorization: Bearer a8f5f167f44f4964e6c998dee827110c", "a8f5f167f44f4964e6c998dee827110c"),
        ("client_secret => Zx81kQpL0vTn5WbM2yRc", "Zx81kQpL0vTn5WbM2yRc"),
        ("mysql://root:s3cr3tPw9@db.example.com/x", "s3cr3tPw9"),
    ],
)
def test_a_value_that_looks_drawn_is_a_secret_when_its_name_says_so(text: str, secret: str) -> None:
    assert [text[item.start : item.end] for item in scan(text, {"secrets"})] == [secret]


@pytest.mark.parametrize(
    "text",
    [
        "token = get_token_from_environment()",
        "api_key = os.environ['OPENAI_API_KEY']",
        "password: <your-password>",
        "secret: ${VAULT_SECRET_PATH_V2}",
        "max_tokens: 4096",
        "the key is under the doormat",
        "task-force and risk-averse people, sk-learn too",
        "desk-abcdefghijklmnopqrstuvwxyz1234567890x",
        "API_KEY=xxxxxxxxxxxxxxxxxxxx1",
        "token: your-token-goes-here-12345",
        "primary_key: 550e8400-e29b-41d4-a716-446655440000",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "https://user@example.com/path",
        "postgres://user:password@localhost/db",
        "hf_hub_download and npm_config_registry",
        "AKIA is a prefix",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "eyJust a word",
        "keyboard: international-qwerty-layout",
    ],
)
def test_what_only_resembles_a_secret_is_left_alone(text: str) -> None:
    assert scan(text, {"secrets"}) == []


def test_entropy_is_in_bits_per_character() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
    assert looks_random(base64.b64encode(bytes(range(7, 200, 7))).decode())
    assert not looks_random("a-quite-ordinary-slug-2")
