"""The request body: read within its limits, parsed once, checked where cheap.

What goes on is the serialisation of the parsed value, not the client's bytes: what is judged is what is sent, so
duplicate keys or odd escapes can't mean one thing to a guard and another to an engine. Unknown fields are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Receive

from schemas.errors import Code, Failure, Refusal

_LONGEST_MODEL = 256  # characters
_MOST_MESSAGES = 100_000
_SMALL = 1024 * 1024  # bytes up to which a body is parsed whatever it holds
_MOST_OPENED = 1_000_000  # opening brackets and braces of a larger body, those in texts included
_MOST_QUOTES = 4_000_000


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat request that may become a run. body: the normalised JSON."""

    body: bytes
    model: str
    stream: bool
    max_tokens: int | None


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


def parse_chat(raw: bytes) -> ChatRequest:
    """The request in `raw`. Refusal(invalid_request | missing_required_parameter), `param` naming the culprit."""
    fields = parse_object(raw)
    model = _model(fields)
    _messages(fields)
    for name, (fits, expected) in _SHAPES.items():
        value = fields.get(name)
        if value is not None and not fits(value):
            raise _invalid(name, expected)
    stream = fields.get("stream") is True
    if fields.get("stream_options") is not None and not stream:
        raise _invalid("stream_options", "left out unless 'stream' is true")
    most = fields.get("max_completion_tokens")
    return ChatRequest(
        body=_normalise(fields),
        model=model,
        stream=stream,
        max_tokens=most if most is not None else fields.get("max_tokens"),
    )


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


def _normalise(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:  # orjson reads deeper than it writes
        raise Refusal.of(Code.invalid_request, "The request body is nested too deeply.") from None


def _model(fields: dict[str, Any]) -> str:
    model = fields.get("model")
    if model is None:
        raise _missing("model")
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_MODEL:
        raise _invalid("model", f"a text of 1 to {_LONGEST_MODEL} characters")
    return model


def _messages(fields: dict[str, Any]) -> None:
    messages = fields.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_MESSAGES:
        raise _invalid("messages", "a list of at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _invalid(f"messages[{number}]", "an object with a 'role'")
        role = message.get("role")
        if role is None:
            raise _missing(f"messages[{number}].role")
        if not isinstance(role, str) or not role:
            raise _invalid(f"messages[{number}].role", "a role such as 'user'")


def _missing(name: str) -> Refusal:
    return Refusal.of(Code.missing_required_parameter, f"Missing required parameter: '{name}'.", param=name)


def _invalid(name: str, expected: str) -> Refusal:
    return Refusal(
        Failure(
            code=Code.invalid_request.value,
            public_code="invalid_value",
            message=f"Invalid value for '{name}': it must be {expected}.",
            param=name,
        )
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _counted(value: Any) -> bool:
    return _whole(value) and value >= 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_COUNT = (_counted, "a whole number of at least 1")
_NUMBER = (_number, "a number")
_FLAG = (_is(bool), "true or false")
_LIST = (_is(list), "a list")
_OBJECT = (_is(dict), "an object")

#: Types that cost nothing to check here; ranges beyond them are the engine's to judge. null means left out.
_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stream": _FLAG,
    "stream_options": _OBJECT,
    "n": _COUNT,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "seed": (_whole, "a whole number"),
    "logprobs": _FLAG,
    "top_logprobs": (_whole, "a whole number"),
    "tools": _LIST,
    "functions": _LIST,
    "parallel_tool_calls": _FLAG,
    "response_format": _OBJECT,
    "logit_bias": _OBJECT,
    "metadata": _OBJECT,
    "user": (_is(str), "a text"),
}
