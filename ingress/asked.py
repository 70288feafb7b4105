"""What a client asks for, route by route: the checks that cost nothing, and what a run needs to know of the body.

Types are checked here; ranges and meanings beyond them are the engine's to judge. null means left out. A body with an
unknown field passes and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ingress.body import normalise, parse_object
from ingress.shapes import (
    COUNT,
    FLAG,
    LIST,
    NOT_NEGATIVE,
    NUMBER,
    OBJECT,
    PACKING,
    TEXT,
    WHOLE,
    Shape,
    check,
    invalid,
    is_text,
    missing,
    model_of,
    needed,
)
from schemas.routes import MODERATIONS_MODEL

_MOST_ITEMS = 100_000  # messages of a chat, texts of a batch, token ids of all prompts
_MOST_MODERATED = 1024  # texts judged by one request; each may leave a report in its verdicts


class Asked(msgspec.Struct, frozen=True):
    """A request that may become a run. body: the normalised JSON. max_tokens: the client's own bound or None. store:
    the client wants its answer kept. background: nobody waits for it. said: the body as the client has it, b"" = the
    same: turns before it may be kept in other words by the time it is said again."""

    body: bytes
    model: str
    stream: bool = False
    max_tokens: int | None = None
    store: bool = False
    background: bool = False
    said: bytes = b""


Parse = Callable[[bytes], Asked]


def parse_chat(raw: bytes) -> Asked:
    """POST /v1/chat/completions. Refusal(invalid_request | missing_required_parameter), `param` naming the culprit."""
    fields = parse_object(raw)
    model = model_of(fields)
    _messages(fields)
    check(fields, CHAT_FIELDS)
    most = fields.get("max_completion_tokens")
    return _streamed(fields, model, most if most is not None else fields.get("max_tokens"))


def parse_completion(raw: bytes) -> Asked:
    """POST /v1/completions. `prompt`: a text, a list of texts, token ids, or lists of token ids."""
    fields = parse_object(raw)
    model = model_of(fields)
    _texts_or_tokens(fields, "prompt")
    check(fields, COMPLETION_FIELDS)
    return _streamed(fields, model, fields.get("max_tokens"))


def parse_embedding(raw: bytes) -> Asked:
    """POST /v1/embeddings. `input`: a text, a list of texts, token ids, or lists of token ids."""
    fields = parse_object(raw)
    model = model_of(fields)
    _texts_or_tokens(fields, "input")
    check(fields, EMBEDDING_FIELDS)
    _unstreamed(fields)
    return Asked(normalise(fields), model)


def parse_moderation(raw: bytes) -> Asked:
    """POST /v1/moderations. `input`: a text, a list of texts, or a list of text parts, which together are one input.

    The client's `model` is kept in the body and means nothing: the guardrails of this gateway judge."""
    fields = parse_object(raw)
    if fields.get("model") is not None:
        model_of(fields)
    _moderated(fields)
    _unstreamed(fields)
    return Asked(normalise(fields), MODERATIONS_MODEL)


def _streamed(fields: dict[str, Any], model: str, most: int | None) -> Asked:
    stream = fields.get("stream") is True
    if fields.get("stream_options") is not None and not stream:
        raise invalid("stream_options", "left out unless 'stream' is true")
    return Asked(normalise(fields), model, stream, most, fields.get("store") is True)


def _unstreamed(fields: dict[str, Any]) -> None:
    stream = fields.get("stream")
    if stream is not None and stream is not False:
        raise invalid("stream", "left out: this route answers whole")


def _messages(fields: dict[str, Any]) -> None:
    messages = fields.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_ITEMS:
        raise invalid("messages", f"a list of 1 to {_MOST_ITEMS} messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise invalid(f"messages[{number}]", "an object with a 'role'")
        role = message.get("role")
        if role is None:
            raise missing(f"messages[{number}].role")
        if not isinstance(role, str) or not role:
            raise invalid(f"messages[{number}].role", "a role such as 'user'")


def _texts_or_tokens(fields: dict[str, Any], name: str) -> None:
    """One text or many, one prompt of token ids or many; never a mixture, which no engine would read alike."""
    value = needed(fields, name)
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_ITEMS:
        raise invalid(name, f"a text, a list of 1 to {_MOST_ITEMS} texts, or token ids")
    if not (all(map(is_text, value)) or _tokens(value) or _token_lists(value)):
        raise invalid(name, f"a text, a list of texts, or at most {_MOST_ITEMS} token ids")


def _moderated(fields: dict[str, Any]) -> None:
    value = needed(fields, "input")
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_MODERATED:
        raise invalid("input", f"a text, or a list of 1 to {_MOST_MODERATED} texts or text parts")
    parts = isinstance(value[0], dict)
    for number, item in enumerate(value):
        if not (_text_part(item) if parts else is_text(item)):
            expected = "a part {'type': 'text', 'text': ...}: nothing else is judged here" if parts else "a text"
            raise invalid(f"input[{number}]", expected)


def _tokens(value: Any) -> bool:
    """By types as a set: this runs on the loop, and there may be 100,000."""
    return isinstance(value, list) and set(map(type, value)) == {int} and min(value) >= 0


def _token_lists(value: list[Any]) -> bool:
    lists = all(isinstance(item, list) for item in value)
    return lists and sum(map(len, value)) <= _MOST_ITEMS and all(map(_tokens, value))


def _text_part(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text" and isinstance(value.get("text"), str)


_GENERATED: Mapping[str, Shape] = {
    "stream": FLAG,
    "stream_options": OBJECT,
    "n": COUNT,
    "max_tokens": COUNT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "frequency_penalty": NUMBER,
    "presence_penalty": NUMBER,
    "seed": WHOLE,
    "logit_bias": OBJECT,
    "user": TEXT,
}
CHAT_FIELDS: Mapping[str, Shape] = {
    **_GENERATED,
    "max_completion_tokens": COUNT,
    "logprobs": FLAG,
    "top_logprobs": WHOLE,
    "tools": LIST,
    "functions": LIST,
    "parallel_tool_calls": FLAG,
    "response_format": OBJECT,
    "metadata": OBJECT,
    "store": FLAG,
}
COMPLETION_FIELDS: Mapping[str, Shape] = {
    **_GENERATED,
    "max_tokens": NOT_NEGATIVE,  # 0 with echo: the prompt's own log probabilities
    "best_of": COUNT,
    "echo": FLAG,
    "logprobs": WHOLE,
    "suffix": TEXT,
}
EMBEDDING_FIELDS: Mapping[str, Shape] = {
    "dimensions": COUNT,
    "encoding_format": PACKING,
    "user": TEXT,
}
