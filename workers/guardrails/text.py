"""Where a request holds text that a model reads: every (JSON pointer, text) of a body, in document order.

Everything that is a string is text unless it is known not to be, so a field nobody has thought of is scanned rather
than missed. Not text: top-level settings and identifiers (`_SETTINGS`), and below them structural strings (`_NAMES`:
ids, types, URLs, audio and file data, embedded images). A role counts as text when it is not a usual role, because a
chat template may print it. Object keys (the parameter names of a tool) can't be edited by a pointer and are not read;
token ids (a prompt of numbers) can't be read: `token_ids` says where a body has them.

Pointers are RFC 6901. Texts that are JSON themselves (tool call arguments, JSON tool results) are marked: their
escapes are resolved before scanning (`unescape`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from schemas.routes import TOKEN_IDS

_SETTINGS = frozenset((
    "model", "user", "metadata", "stream", "stream_options", "safety_identifier", "prompt_cache_key",
    "service_tier", "moderation", "seed", "reasoning_effort", "verbosity", "modalities", "encoding_format",
    "previous_response_id", "conversation", "include", "truncation",
))  # fmt: skip
_NAMES = frozenset((
    "type", "id", "tool_call_id", "call_id", "item_id", "file_id", "url", "image_url", "file_url", "file_data",
    "data", "encrypted_content", "format", "detail", "status", "index", "$ref", "$schema", "$id", "cache_control",
    "media_type", "mime_type",
))  # fmt: skip
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
#: Beside the fields of OpenAI (schemas.routes.TOKEN_IDS): what engines take in place of text, on whichever route.
_UNREADABLE = ("prompt_embeds", "input_embeds", "prompt_token_ids", "input_ids")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/bfnrt]))')
_PLAIN = {"b": " ", "f": " ", "n": "\n", "r": "\r", "t": "\t"}


class Part(NamedTuple):
    """One text of a body. json: the text is itself JSON, or looks so, and its escapes stand for other characters."""

    pointer: str
    text: str
    json: bool = False


def parts(body: Any) -> Iterator[Part]:
    """Every text of `body`. Walks with a stack of its own: nesting can't exhaust the interpreter's."""
    if not isinstance(body, dict):
        return
    stack: list[tuple[str, str, Any]] = [
        (f"/{_token(key)}", key, value) for key, value in reversed(body.items()) if key not in _SETTINGS
    ]
    while stack:
        pointer, key, value = stack.pop()
        if isinstance(value, str):
            if value and _is_text(key, value):
                yield Part(pointer, value, _is_json(key, value))
        elif isinstance(value, dict):
            stack.extend([(f"{pointer}/{_token(name)}", name, item) for name, item in reversed(value.items())])
        elif isinstance(value, list):
            items = [(index, item) for index, item in enumerate(value) if isinstance(item, (str, dict, list))]
            stack.extend([(f"{pointer}/{index}", key, item) for index, item in reversed(items)])


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def _is_text(key: str, value: str) -> bool:
    return value not in _ROLES if key == "role" else key not in _NAMES


def _is_json(key: str, value: str) -> bool:
    return key == "arguments" or (value[0] in "{[" and "\\" in value)


def token_ids(body: Any, route: str) -> str | None:
    """The field of `body` that an engine would read as words though it is no text: token ids, ready embeddings."""
    if not isinstance(body, dict):
        return None
    for name in _UNREADABLE:
        if body.get(name) is not None:
            return name
    name = TOKEN_IDS.get(route, "")
    value = body.get(name)
    return name if isinstance(value, list) and any(not isinstance(item, str) for item in value) else None


def unescape(text: str) -> tuple[str, list[int]] | None:
    """The text with its JSON escapes resolved, and for each of its characters the place in the original (one more
    entry at the end). None when there is nothing to resolve."""
    if "\\" not in text:
        return None
    plain: list[str] = []
    starts: list[int] = []
    reached = 0
    for match in _ESCAPE.finditer(text):
        plain.append(text[reached : match.start()])
        starts.extend(range(reached, match.start()))
        plain.append(chr(int(match[1], 16)) if match[1] else _PLAIN.get(match[2], match[2]))
        starts.append(match.start())
        reached = match.end()
    plain.append(text[reached:])
    starts.extend(range(reached, len(text) + 1))
    return "".join(plain), starts
