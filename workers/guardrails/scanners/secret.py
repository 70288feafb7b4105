"""Credentials: keys of known shape, private keys, JWTs, our own keys, logins in URLs, and high-entropy assignments.

Three ways, each with its own cheap gate:
- shapes: a literal that a provider puts into its keys, then the rest of the shape at that place. Literals are first
  looked for among the long words of the text (prepared.long_words), of which prose has next to none;
- blocks: PEM private keys, from their first line to their last (or as far as they go when cut off);
- assignments: `password = ...`, `"api_key": "..."` with a value that looks random, not like a placeholder.
Every pattern is anchored and bounded, so no text makes it backtrack far.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Prepared

_W = r"[A-Za-z0-9_-]"
_END = r"(?![A-Za-z0-9_-])"

#: name, the literal that begins the key, what follows it. Order matters only for names: overlaps merge later.
_SHAPES: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (name, literal, re.compile(re.escape(literal) + rest))
    for name, literal, rest in (
        ("headrace", "hr_", r"[A-Za-z0-9-]{4,64}_[A-Za-z0-9-]{16,128}_[A-Za-z0-9-]{8,64}" + _END),
        ("anthropic", "sk-ant-", _W + r"{24,200}"),
        ("openrouter", "sk-or-", _W + r"{24,120}"),
        ("openai", "sk-proj-", _W + r"{24,200}"),
        ("openai", "sk-svcacct-", _W + r"{24,200}"),
        ("openai", "sk-", r"(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9]{20,120}" + _END),
        ("aws", "AKIA", r"[A-Z2-7]{16}" + _END),
        ("aws", "ASIA", r"[A-Z2-7]{16}" + _END),
        ("github", "ghp_", r"[A-Za-z0-9]{36,255}"),
        ("github", "gho_", r"[A-Za-z0-9]{36,255}"),
        ("github", "ghu_", r"[A-Za-z0-9]{36,255}"),
        ("github", "ghs_", r"[A-Za-z0-9]{36,255}"),
        ("github", "ghr_", r"[A-Za-z0-9]{36,255}"),
        ("github", "github_pat_", r"[A-Za-z0-9_]{50,255}"),
        ("gitlab", "glpat-", _W + r"{20,128}"),
        ("gitlab", "glrt-", _W + r"{20,128}"),
        ("slack", "xoxb-", r"[A-Za-z0-9-]{20,255}"),
        ("slack", "xoxp-", r"[A-Za-z0-9-]{20,255}"),
        ("slack", "xoxa-", r"[A-Za-z0-9-]{20,255}"),
        ("slack", "xoxs-", r"[A-Za-z0-9-]{20,255}"),
        ("slack", "xapp-", r"[A-Za-z0-9-]{20,255}"),
        ("slack", "hooks.slack.com/services/", r"[A-Za-z0-9/]{20,80}"),
        ("google", "AIza", _W + r"{35}" + _END),
        ("google", "ya29.", _W + r"{40,1000}"),
        ("google", "GOCSPX-", _W + r"{24,40}"),
        ("stripe", "sk_live_", r"[A-Za-z0-9]{16,120}"),
        ("stripe", "sk_test_", r"[A-Za-z0-9]{16,120}"),
        ("stripe", "rk_live_", r"[A-Za-z0-9]{16,120}"),
        ("stripe", "whsec_", r"[A-Za-z0-9+/=]{24,120}"),
        ("sendgrid", "SG.", _W + r"{16,32}\." + _W + r"{32,64}"),
        ("huggingface", "hf_", r"[A-Za-z0-9]{30,64}" + _END),
        ("npm", "npm_", r"[A-Za-z0-9]{36}" + _END),
        ("pypi", "pypi-AgE", _W + r"{40,400}"),
        ("digitalocean", "dop_v1_", r"[a-f0-9]{64}"),
        ("shopify", "shpat_", r"[a-fA-F0-9]{32}"),
        ("groq", "gsk_", r"[A-Za-z0-9]{40,64}"),
        ("xai", "xai-", r"[A-Za-z0-9]{60,120}"),
        ("perplexity", "pplx-", r"[A-Za-z0-9]{40,64}"),
        ("nvidia", "nvapi-", _W + r"{40,120}"),
        ("replicate", "r8_", r"[A-Za-z0-9]{36,40}" + _END),
        ("vault", "hvs.", _W + r"{24,200}"),
        ("docker", "dckr_pat_", _W + r"{24,60}"),
        ("tailscale", "tskey-", _W + r"{20,80}"),
        ("langsmith", "lsv2_", r"(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
        ("azure", "AccountKey=", r"[A-Za-z0-9+/]{60,100}={0,2}"),
        ("jwt", "eyJ", _W + r"{8,4000}\.eyJ" + _W + r"{8,8000}(?:\." + _W + r"{0,2000})?"),
    )
)
_PEM_HEAD = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_REST = re.compile(r"(?:\\[nr]|[A-Za-z0-9+/=:,;.\s-])*+")
_PEM_LIMIT = 20_000  # characters of one PEM block

_LOGIN = re.compile(r"://([^\s:/?#@\"'<>]{0,128}):([^\s/?#@\"'<>]{3,256})@[A-Za-z0-9\[]")

_WORDS = ("key", "secret", "token", "passw", "pwd", "credential", "bearer", "auth")
_ASSIGN = re.compile(
    r"[\w-]{0,24}?[\"'`]?[ \t]{0,4}(?::=|=>|=|:|\bis\b)[ \t]{0,4}(?:(?:bearer|basic|token)[ \t]{1,4})?[\"'`]?"
    r"([^\s\"'`,;<>(){}\[\]]{8,512})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"bearer[ \t]{1,4}([A-Za-z0-9._~+/=-]{20,2000})", re.IGNORECASE)
_JUDGED = 128  # characters of a value that are looked at
_PARTS = re.compile(r"[-_./:]")
_PLACEHOLDER = re.compile(
    r"x{4}|\*{3}|\.\.\.|your|example|change|placeholder|redacted|dummy|process\.|os\.|env|config|settings|self\.|"
    r"https?:|\$|%|\{|^/|^\.|^[0-9a-f]{8}-[0-9a-f]{4}-|(.)\1{5}",
    re.IGNORECASE,
)


def scan(prepared: Prepared) -> list[Finding]:
    """Credentials of the text; overlapping findings are left to the policy to merge."""
    found: list[Finding] = []
    if prepared.long_words:
        found.extend(_shapes(prepared))
        if "://" in prepared.long_words:
            found.extend(_logins(prepared.text))
    if "-----BEGIN" in prepared.text:
        found.extend(_blocks(prepared.text))
    if prepared.digits or not prepared.text.isascii():  # nothing without a digit looks random
        found.extend(_assignments(prepared, found))
    return found


def _shapes(prepared: Prepared) -> list[Finding]:
    long_words, text = prepared.long_words, prepared.text
    found: list[Finding] = []
    for name, literal, pattern in _SHAPES:
        if literal not in long_words:
            continue
        at = text.find(literal)
        while at >= 0:
            match = pattern.match(text, at) if _begins(text, at) else None
            if match:
                found.append(Finding(at, match.end(), "secrets", f"secrets/{name}", 0.97))
            at = text.find(literal, match.end() if match else at + 1)
    return found


def _begins(text: str, at: int) -> bool:
    """A key does not begin in the middle of a word; an escape such as backslash-n may stand before it."""
    if not at or not (text[at - 1].isalnum() or text[at - 1] in "_-"):
        return True
    return text[at - 1] in "nrt" and at > 1 and text[at - 2] == "\\"


def _blocks(text: str) -> list[Finding]:
    found: list[Finding] = []
    head = _PEM_HEAD.search(text)
    while head:
        tail = _PEM_END.search(text, head.end(), head.end() + _PEM_LIMIT)
        rest = None if tail else _PEM_REST.match(text, head.end(), head.end() + _PEM_LIMIT)
        end = tail.end() if tail else rest.end() if rest else head.end()
        found.append(Finding(head.start(), end, "secrets", "secrets/private_key", 0.99))
        head = _PEM_HEAD.search(text, end)
    return found


def _logins(text: str) -> list[Finding]:
    """The password in `scheme://user:password@host`."""
    found: list[Finding] = []
    at = text.find("://")
    while at >= 0:
        match = _LOGIN.match(text, at)
        if match and not _PLACEHOLDER.search(match[2]) and match[2].lower() not in ("password", "pass", "secret"):
            found.append(Finding(match.start(2), match.end(2), "secrets", "secrets/url_login", 0.9))
        at = text.find("://", at + 3)
    return found


def _assignments(prepared: Prepared, known: list[Finding]) -> list[Finding]:
    """Values that look random and are given to something called key, token, secret, password ..."""
    found: list[Finding] = []
    taken = {finding.start for finding in known}
    for word in _WORDS:
        at = prepared.lower.find(word)
        while at >= 0:
            span = _value(prepared.text, at, word)
            if span and span[0] not in taken and _is_drawn(prepared.text, span, word):
                taken.add(span[0])
                found.append(Finding(*span, "secrets", "secrets/assignment", 0.75))
            # A value judged is passed over, at most as far as it was read, so a chain of names costs no more.
            at = prepared.lower.find(word, min(span[1], span[0] + _JUDGED) if span else at + len(word))
    return found


def _value(text: str, at: int, word: str) -> tuple[int, int] | None:
    """Where the value stands that is given to the name with `word` at `at`."""
    match = _BEARER.match(text, at) if word == "bearer" else None
    match = match or _ASSIGN.match(text, at + len(word))
    return (match.start(1), match.start(1) + len(match[1].rstrip(".:!?\\"))) if match else None


def _is_drawn(text: str, span: tuple[int, int], word: str) -> bool:
    if text[span[1] : span[1] + 1] in ("(", "[", "{", "<"):
        return False
    return looks_random(text[span[0] : min(span[1], span[0] + _JUDGED)], password=word in ("passw", "pwd"))


def looks_random(value: str, *, password: bool = False) -> bool:
    """Whether `value` is more likely drawn than written: kinds of characters, entropy per character, no placeholder.

    A password counts from 8 characters of three kinds; anything else from 16 characters with letters and digits."""
    if _PLACEHOLDER.search(value):
        return False
    kinds = sum(
        (
            any(char.islower() for char in value),
            any(char.isupper() for char in value),
            any(char.isdigit() for char in value),
            any(not char.isalnum() for char in value),
        )
    )
    if password and len(value) >= 8 and kinds >= 3 and any(char.isdigit() for char in value):
        return True
    if len(value) < 16 or not any(char.isdigit() for char in value) or not any(char.isalpha() for char in value):
        return False
    if all(part.isdigit() or part.isalpha() for part in _PARTS.split(value) if part):
        return False  # words and figures with joints between them: a slug, a file name, a date
    return entropy(value) >= (3.0 if len(value) < 32 else 3.2)


def entropy(value: str) -> float:
    """Shannon entropy of the characters of `value`, bits per character."""
    counts = Counter(value)
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
