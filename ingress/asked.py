"""What a client asks for, route by route: the checks that cost nothing, and what a run needs to know of the body.

Types are checked here; ranges and meanings beyond them are the engine's to judge. null means left out. A body with an
unknown field passes and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingress.body import normalise, parse_object
from schemas.errors import Code, Failure, Refusal
from schemas.routes import MODERATIONS_MODEL

_LONGEST_MODEL = 256  # characters
_MOST_ITEMS = 100_000  # messages of a chat, texts of a batch, token ids of all prompts
_MOST_MODERATED = 1024  # texts judged by one request; each may leave a report in its verdicts


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may become a run. body: the normalised JSON. max_tokens: the client's own bound or None. store:
    the client wants its answer kept."""

    body: bytes
    model: str
    stream: bool = False
    max_tokens: int | None = None
    store: bool = False


Parse = Callable[[bytes], Asked]


def parse_chat(raw: bytes) -> Asked:
    """POST /v1/chat/completions. Refusal(invalid_request | missing_required_parameter), `param` naming the culprit."""
    fields = parse_object(raw)
    model = _model(fields)
    _messages(fields)
    _shapes(fields, CHAT_FIELDS)
    most = fields.get("max_completion_tokens")
    return _streamed(fields, model, most if most is not None else fields.get("max_tokens"))


def parse_completion(raw: bytes) -> Asked:
    """POST /v1/completions. `prompt`: a text, a list of texts, token ids, or lists of token ids."""
    fields = parse_object(raw)
    model = _model(fields)
    _texts_or_tokens(fields, "prompt")
    _shapes(fields, COMPLETION_FIELDS)
    return _streamed(fields, model, fields.get("max_tokens"))


def parse_embedding(raw: bytes) -> Asked:
    """POST /v1/embeddings. `input`: a text, a list of texts, token ids, or lists of token ids."""
    fields = parse_object(raw)
    model = _model(fields)
    _texts_or_tokens(fields, "input")
    _shapes(fields, EMBEDDING_FIELDS)
    _unstreamed(fields)
    return Asked(normalise(fields), model)


def parse_moderation(raw: bytes) -> Asked:
    """POST /v1/moderations. `input`: a text, a list of texts, or a list of text parts, which together are one input.

    The client's `model` is kept in the body and means nothing: the guardrails of this gateway judge."""
    fields = parse_object(raw)
    if fields.get("model") is not None:
        _model(fields)
    _moderated(fields)
    _unstreamed(fields)
    return Asked(normalise(fields), MODERATIONS_MODEL)


def _streamed(fields: dict[str, Any], model: str, most: int | None) -> Asked:
    stream = fields.get("stream") is True
    if fields.get("stream_options") is not None and not stream:
        raise _invalid("stream_options", "left out unless 'stream' is true")
    return Asked(normalise(fields), model, stream, most, fields.get("store") is True)


def _unstreamed(fields: dict[str, Any]) -> None:
    stream = fields.get("stream")
    if stream is not None and stream is not False:
        raise _invalid("stream", "left out: this route answers whole")


def _shapes(fields: dict[str, Any], shapes: Mapping[str, Shape]) -> None:
    for name, (fits, expected, _) in shapes.items():
        value = fields.get(name)
        if value is not None and not fits(value):
            raise _invalid(name, expected)


def _model(fields: dict[str, Any]) -> str:
    model = _needed(fields, "model")
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_MODEL:
        raise _invalid("model", f"a text of 1 to {_LONGEST_MODEL} characters")
    return model


def _messages(fields: dict[str, Any]) -> None:
    messages = _needed(fields, "messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_ITEMS:
        raise _invalid("messages", "a list of at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _invalid(f"messages[{number}]", "an object with a 'role'")
        role = message.get("role")
        if role is None:
            raise _missing(f"messages[{number}].role")
        if not isinstance(role, str) or not role:
            raise _invalid(f"messages[{number}].role", "a role such as 'user'")


def _texts_or_tokens(fields: dict[str, Any], name: str) -> None:
    """One text or many, one prompt of token ids or many; never a mixture, which no engine would read alike."""
    value = _needed(fields, name)
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_ITEMS:
        raise _invalid(name, f"a text, a list of 1 to {_MOST_ITEMS} texts, or token ids")
    if not (all(map(_text, value)) or _tokens(value) or _token_lists(value)):
        raise _invalid(name, f"a text, a list of texts, or at most {_MOST_ITEMS} token ids")


def _moderated(fields: dict[str, Any]) -> None:
    value = _needed(fields, "input")
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_MODERATED:
        raise _invalid("input", f"a text, or a list of 1 to {_MOST_MODERATED} texts or text parts")
    parts = isinstance(value[0], dict)
    for number, item in enumerate(value):
        if not (_text_part(item) if parts else _text(item)):
            expected = "a part {'type': 'text', 'text': ...}: nothing else is judged here" if parts else "a text"
            raise _invalid(f"input[{number}]", expected)


def _needed(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise _missing(name)
    return value


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


def _not_negative(value: Any) -> bool:
    return _whole(value) and value >= 0


def _tokens(value: Any) -> bool:
    """By types as a set: this runs on the loop, and there may be 100,000."""
    return isinstance(value, list) and set(map(type, value)) == {int} and min(value) >= 0


def _token_lists(value: list[Any]) -> bool:
    lists = all(isinstance(item, list) for item in value)
    return lists and sum(map(len, value)) <= _MOST_ITEMS and all(map(_tokens, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_part(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text" and isinstance(value.get("text"), str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


class Shape(NamedTuple):
    """What a field must be when it is there: the check, its words for clients, and those of the document."""

    fits: Callable[[Any], bool]
    expected: str
    schema: Mapping[str, Any]


_COUNT = Shape(_counted, "a whole number of at least 1", {"type": ["integer", "null"], "minimum": 1})
_WHOLE = Shape(_whole, "a whole number", {"type": ["integer", "null"]})
_NUMBER = Shape(_number, "a number", {"type": ["number", "null"]})
_TEXT = Shape(_text, "a text", {"type": ["string", "null"]})
_FLAG = Shape(_is(bool), "true or false", {"type": ["boolean", "null"]})
_LIST = Shape(_is(list), "a list", {"type": ["array", "null"]})
_OBJECT = Shape(_is(dict), "an object", {"type": ["object", "null"]})
_NOT_NEGATIVE = Shape(_not_negative, "a whole number of at least 0", {"type": ["integer", "null"], "minimum": 0})
_PACKING = Shape(lambda value: value in ("float", "base64"), "'float' or 'base64'", {"enum": ["float", "base64", None]})

_GENERATED: Mapping[str, Shape] = {
    "stream": _FLAG,
    "stream_options": _OBJECT,
    "n": _COUNT,
    "max_tokens": _COUNT,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "seed": _WHOLE,
    "logit_bias": _OBJECT,
    "user": _TEXT,
}
CHAT_FIELDS: Mapping[str, Shape] = {
    **_GENERATED,
    "max_completion_tokens": _COUNT,
    "logprobs": _FLAG,
    "top_logprobs": _WHOLE,
    "tools": _LIST,
    "functions": _LIST,
    "parallel_tool_calls": _FLAG,
    "response_format": _OBJECT,
    "metadata": _OBJECT,
    "store": _FLAG,
}
COMPLETION_FIELDS: Mapping[str, Shape] = {
    **_GENERATED,
    "max_tokens": _NOT_NEGATIVE,  # 0 with echo: the prompt's own log probabilities
    "best_of": _COUNT,
    "echo": _FLAG,
    "logprobs": _WHOLE,
    "suffix": _TEXT,
}
EMBEDDING_FIELDS: Mapping[str, Shape] = {
    "dimensions": _COUNT,
    "encoding_format": _PACKING,
    "user": _TEXT,
}
