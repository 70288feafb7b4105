"""Idempotency-Key: what makes two requests the same one. The key itself goes no further than this file.

A name is an HMAC over the API key's id, the route and the Idempotency-Key, by a key of the ring; what was asked is an
HMAC over the body with its fields in order, by the same key. An API key keeps its id when its secret is rotated, so a
retry under the new secret is the same request; two API keys never share anything.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

import orjson

from policy.api_keys import Ring
from schemas.errors import Code, Refusal
from schemas.ports import Mark, Once

_HEADER = b"idempotency-key"
_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_PURPOSE = "once"


def once_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The Idempotency-Key, None when there is none; Refusal(invalid_request) for one that cannot be."""
    key = headers.get(_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        words = "Invalid value for header 'idempotency-key': it must be 1 to 255 printable ASCII characters."
        raise Refusal.of(Code.invalid_request, words, param="idempotency-key")
    return key


def once_of(ring: Ring, tenant: str, key_id: str, route: str, key: bytes, body: bytes) -> Once:
    """What the key and the normalised body amount to."""
    what = b"\0".join((key_id.encode(), route.encode(), key))
    asked = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    spread = int.from_bytes(hashlib.sha256(what).digest()[:4], "big")
    return Once(
        marks=tuple(_mark(ring.derive(kid, _PURPOSE), what, asked) for kid in ring.kids), spread=spread, tenant=tenant
    )


def _mark(secret: bytes, what: bytes, asked: bytes) -> Mark:
    name = hmac.digest(secret, b"name\n" + what, "sha256").hex()
    return Mark(name, hmac.digest(secret, b"asked\n" + asked, "sha256").hex())
