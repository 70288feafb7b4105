"""An engine's error answer, in any of the shapes that OpenAI-compatible engines use, as one EngineError. Pure.

{"error": {"message", "type", "param", "code"}}     OpenAI, vLLM, llama.cpp      {"error": "text"}   Ollama
{"object": "error", "message", "type", "code"}      older vLLM                   {"detail": ...}     FastAPI
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from providers.errors import EngineError

#: Bytes of an error answer that are read; FastAPI's repeat the whole request.
MAX_BODY = 4 * 1024 * 1024
#: Characters of an engine's message that are passed on.
MAX_MESSAGE = 2000


def engine_error(status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
    """What an answer with status >= 300 says; a body that says nothing gives a sentence with the status."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
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
    """Milliseconds of retry-after-ms or retry-after (its number form), None when there is none."""
    for name, unit in (("retry-after-ms", 1), ("retry-after", 1000)):
        try:
            wait = float(headers.get(name, ""))
        except ValueError:
            continue
        if 0 <= wait < 1e9:
            return int(wait * unit)
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
