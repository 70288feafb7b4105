"""An engine's error answer, in any of the shapes that OpenAI-compatible engines use, as one EngineError. Pure.

{"error": {"message", "type", "param", "code"}}     OpenAI, vLLM, llama.cpp      {"error": "text"}   Ollama
{"object": "error", "message", "type", "code"}      older vLLM                   {"detail": ...}     FastAPI
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from providers.errors import EngineError

#: Bytes of an error answer that are read; FastAPI's repeat the whole request.
MAX_BODY = 4 * 1024 * 1024
#: An engine that asks to be left alone for longer is asked again all the same: its clock may be wrong, or it may lie.
LONGEST_WAIT_MS = 3_600_000
#: Characters of an engine's message that are passed on.
MAX_MESSAGE = 2000


def engine_error(status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
    """What an answer with status >= 300 says; a body that says nothing gives a sentence with the status."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = None
    return error_of(said, status, retry_after_ms(headers))


def error_of(said: Any, status: int = 0, wait_ms: int | None = None) -> EngineError:
    """The error in a decoded body or event."""
    inner = said.get("error", said) if isinstance(said, dict) else said
    if not isinstance(inner, dict):
        inner = {"message": inner}
    message = inner.get("message") or inner.get("detail")
    return EngineError(
        status or _status(inner),
        message[:MAX_MESSAGE] if isinstance(message, str) else _without_words(status, message),
        type=_text(inner.get("type")),
        code=_text(inner.get("code")),
        param=_text(inner.get("param")),
        retry_after_ms=wait_ms,
    )


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Milliseconds of retry-after-ms or retry-after, at most LONGEST_WAIT_MS; None when there is none.

    A date (RFC 9110 section 10.2.3) is read by the engine's own clock, its `date`; without one it is the shortest
    wait."""
    for name, unit in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            wait = float(headers.get(name, ""))
        except ValueError:
            continue
        if wait >= 0:
            return int(min(wait * unit, LONGEST_WAIT_MS))
    until, now = _date(headers.get("retry-after", "")), _date(headers.get("date", ""))
    if until is None:
        return None
    return int(min(max(until - (until if now is None else now), 1) * 1000, LONGEST_WAIT_MS))


def _date(text: str) -> float | None:
    """An HTTP date as seconds since 1970."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _without_words(status: int, message: object) -> str:
    """FastAPI's `detail` is a list of faults; everything else is told by its status."""
    if isinstance(message, list) and message:
        return msgspec.json.encode(message).decode()[:MAX_MESSAGE]
    return f"the engine answered with status {status}" if status else "the engine reported an error"


def _text(value: object) -> str | None:
    """OpenAI's fields are text or null; a number (vLLM's code) is not passed on."""
    return value if isinstance(value, str) and value else None


def _status(inner: Mapping[str, Any]) -> int:
    """An error event has no status of its own; vLLM writes it into `code`."""
    code = inner.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 0
