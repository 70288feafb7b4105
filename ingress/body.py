"""The request body: read within its limits, parsed once. What must stand in it: ingress/asked.py.

What goes on is the serialisation of the parsed value, not the client's bytes: what is judged is what is sent, so
duplicate keys or odd escapes can't mean one thing to a guard and another to an engine. Unknown fields are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Receive

from schemas.errors import Code, Refusal

_SMALL = 1024 * 1024  # bytes up to which a body is parsed whatever it holds
_MOST_OPENED = 1_000_000  # opening brackets and braces of a larger body, those in texts included
_MOST_QUOTES = 4_000_000


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout_s: float) -> bytes:
    """The whole body. Refusal(request_too_large) above `limit` bytes, announced or counted; Refusal(request_timeout)
    when it is not here in time; ClientGone."""
    if _announced(headers) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(receive, limit)
    except TimeoutError:
        raise Refusal.of(
            Code.request_timeout, f"The request body did not arrive within {timeout_s:g} seconds; send it again."
        ) from None


async def _collect(receive: Receive, limit: int) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        return body
    whole = bytearray()
    while message["type"] == "http.request":
        whole += message.get("body", b"")
        if len(whole) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(whole)
        message = await receive()
    raise ClientGone


def _announced(headers: Mapping[bytes, bytes]) -> int:
    """The content-length, 0 for a chunked body."""
    text = headers.get(b"content-length", b"")
    return int(text) if text.isdigit() else 0


def _too_large(limit: int) -> Refusal:
    return Refusal.of(Code.request_too_large, f"The request body is larger than the limit of {limit} bytes.")


def parse_object(raw: bytes) -> dict[str, Any]:
    """`raw` as a JSON object; Refusal(invalid_request) for anything else: empty, bad UTF-8, NaN, too deep, a list, or
    so many tiny values that parsing them would hold up everybody else (20 MiB of `[],` take 2.7 s and 500 MB)."""
    if len(raw) > _SMALL and (raw.count(b"[") + raw.count(b"{") > _MOST_OPENED or raw.count(b'"') > _MOST_QUOTES):
        raise Refusal.of(Code.invalid_request, "The request body holds too many values for its size.")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refusal.of(Code.invalid_request, f"The request body is not valid JSON: {error.msg}.") from None
    if not isinstance(value, dict):
        raise Refusal.of(Code.invalid_request, "The request body must be a JSON object.")
    return value


def normalise(fields: dict[str, Any]) -> bytes:
    """The body that goes on."""
    try:
        return orjson.dumps(fields)
    except TypeError:  # orjson reads deeper than it writes
        raise Refusal.of(Code.invalid_request, "The request body is nested too deeply.") from None
