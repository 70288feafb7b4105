"""E-mail addresses: looked for around each `@`, at most 64 characters to the left and 253 to the right (RFC 5321).

Not addresses: `git@host:path`, `user:password@host` in a URL (that is a secret), `package@1.2.3`, `icon@2x.png`,
decorators, and hosts without a dot.
"""

from __future__ import annotations

import re

from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.prepared import Prepared

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}")
_DOMAIN = re.compile(r"[\w.-]{3,253}")
_FILES = frozenset((
    "png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "ico", "bmp", "css", "scss", "js", "mjs", "ts", "tsx",
    "jsx", "json", "html", "htm", "xml", "md", "txt", "py", "pdf", "zip", "gz", "tgz", "tar", "yaml", "yml",
    "toml", "lock", "map", "woff", "woff2",
))  # fmt: skip
_TRIM = "'`*/=?{|}~!#$%&^.\"-"


def scan(prepared: Prepared) -> list[Finding]:
    """Addresses of the text, in order, never overlapping."""
    text = prepared.text
    found: list[Finding] = []
    at = text.find("@")
    floor = 0
    while at >= 0:
        span = _around(text, at, floor)
        if span:
            found.append(Finding(span[0], span[1], "email", "email", 0.95))
            floor = span[1]
        at = text.find("@", max(at + 1, floor))
    return found


def _around(text: str, at: int, floor: int) -> tuple[int, int] | None:
    end = _domain_end(text, at + 1)
    if not end:
        return None
    backwards = _LOCAL.match(text[max(floor, at - 64) : at][::-1])
    if not backwards:
        return None
    local = _local(backwards[0][::-1])
    start = at - len(local)
    if not local or not any(char.isalnum() for char in local) or _is_login(text, start, at, end):
        return None
    return start, end


def _local(raw: str) -> str:
    """The part that belongs to the address: quotes, list marks and `key=` before it do not."""
    for mark in ("=", "/", "'", "`", "|"):
        raw = raw[raw.rfind(mark) + 1 :]
    return raw.lstrip(_TRIM)


def _domain_end(text: str, start: int) -> int:
    """Where the host name ends, or 0 when it is none that mail could go to."""
    match = _DOMAIN.match(text, start, start + 253)
    if not match:
        return 0
    host = match[0].rstrip(".-_")
    labels = host.split(".")
    top = labels[-1].lower()
    if len(labels) < 2 or not all(labels) or top in _FILES:
        return 0
    if not (len(top) >= 2 and (top.isalpha() or top.startswith("xn--"))):
        return 0
    return start + len(host)


def _is_login(text: str, start: int, at: int, end: int) -> bool:
    """`scheme://user:password@host` and `git@host:path` name no mailbox."""
    before = text[max(0, start - 64) : start]
    tail = before[before.rfind("://") + 3 :] if "://" in before else "/"
    if not any(char in tail for char in "/?#& \n\t"):
        return True
    return text[start:at] == "git" and text[end : end + 1] in (":", "/")
