"""What a request for a response asks for: types checked, `input` as a list of items, `store` and `background` decided.

Pure. Ranges and meanings beyond types are the engine's to judge; unknown fields pass and are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingress.asked import Asked
from ingress.body import normalise, parse_object
from ingress.shapes import (
    COUNT,
    FLAG,
    LIST,
    NOT_NEGATIVE,
    NUMBER,
    OBJECT,
    TEXT,
    Shape,
    check,
    invalid,
    is_text,
    missing,
    model_of,
    needed,
)
from schemas.errors import Code, Refusal

Fields = dict[str, Any]

PREVIOUS = "previous_response_id"
_MOST_ITEMS = 100_000
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512  # of metadata; characters

RESPONSE_FIELDS: Mapping[str, Shape] = {
    "stream": FLAG,
    "stream_options": OBJECT,
    "background": FLAG,
    "store": FLAG,
    PREVIOUS: TEXT,
    "instructions": TEXT,
    "max_output_tokens": COUNT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "tools": LIST,
    "parallel_tool_calls": FLAG,
    "text": OBJECT,
    "reasoning": OBJECT,
    "metadata": OBJECT,
    "include": LIST,
    "truncation": Shape(
        lambda value: value in ("auto", "disabled"), "'auto' or 'disabled'", {"enum": ["auto", "disabled", None]}
    ),
    "user": TEXT,
    "max_tool_calls": COUNT,
    "top_logprobs": NOT_NEGATIVE,
    "prompt_cache_key": TEXT,
    "safety_identifier": TEXT,
    "service_tier": TEXT,
}
_ELSEWHERE = {
    "conversation": "Conversations are not kept here; name the turn before with 'previous_response_id'.",
    "prompt": "Prompt templates are not kept here; send 'instructions' and 'input'.",
}


def parse_response(raw: bytes) -> Asked:
    """POST /v1/responses, where answers may be kept. See `fields_of` and `decide`."""
    return asked_of(decide(fields_of(raw), allow_store=True))


def fields_of(raw: bytes) -> Fields:
    """The checked fields, `input` as a list of items. Refusal(invalid_request | missing_required_parameter), `param`
    naming the culprit."""
    fields = parse_object(raw)
    model_of(fields)
    check(fields, RESPONSE_FIELDS)
    for name, words in _ELSEWHERE.items():
        if fields.get(name) is not None:
            raise Refusal.of(Code.invalid_request, f"'{name}' cannot be used. {words}", param=name)
    if fields.get("stream_options") is not None and fields.get("stream") is not True:
        raise invalid("stream_options", "left out unless 'stream' is true")
    _metadata(fields.get("metadata"))
    fields["input"] = _items(needed(fields, "input"))
    return fields


def decide(fields: Fields, *, allow_store: bool) -> Fields:
    """`store` and `background` as they will hold. Refusal(invalid_request) for what needs a kept answer where none is
    kept."""
    if not allow_store:
        for name in ("background", PREVIOUS, "store"):
            if fields.get(name):
                raise _not_stored(name)
        for number, item in enumerate(fields["input"]):
            if is_reference(item):
                raise _not_stored(f"input[{number}]")
    store, background = allow_store and fields.get("store") is not False, fields.get("background") is True
    if background and not store:
        raise invalid("background", "left out where 'store' is false: its answer must be kept until somebody asks")
    fields["store"], fields["background"] = store, background
    return fields


def is_reference(item: Fields) -> bool:
    """Whether it stands for an item of an earlier response."""
    return item.get("type") == "item_reference"


def asked_of(fields: Fields) -> Asked:
    """The run that the fields ask for."""
    return Asked(
        normalise(fields),
        fields["model"],
        fields.get("stream") is True,
        fields.get("max_output_tokens"),
        fields["store"],
        fields["background"],
    )


def _not_stored(name: str) -> Refusal:
    words = (
        f"'{name}' needs responses to be stored, and this gateway stores none: its `server.allow_store` is false. "
        f"Leave '{name}' out, or ask an administrator to set `server.allow_store: true`."
    )
    return Refusal.of(Code.invalid_request, words, param=name)


def _metadata(pairs: Mapping[str, Any] | None) -> None:
    if pairs and not (len(pairs) <= _MOST_PAIRS and all(_fits(*pair) for pair in pairs.items())):
        bounds = f"names of at most {_LONGEST_NAME} characters, values of at most {_LONGEST_VALUE}"
        raise invalid("metadata", f"an object of at most {_MOST_PAIRS} texts: {bounds}")


def _fits(name: str, value: Any) -> bool:
    return is_text(value) and len(name) <= _LONGEST_NAME and len(value) <= _LONGEST_VALUE


def _items(value: Any) -> list[Fields]:
    """A text is one message of the user."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": value}]}]
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_ITEMS:
        raise invalid("input", f"a text or a list of 1 to {_MOST_ITEMS} items")
    for number, item in enumerate(value):
        _item(item, f"input[{number}]")
    return value


def _item(item: Any, name: str) -> None:
    if not isinstance(item, dict) or not is_text(item.get("type", "message")):
        raise invalid(name, "an item: an object with a 'type', or a message with a 'role'")
    if item.get("id") is not None and not is_text(item["id"]):
        raise invalid(f"{name}.id", "a text")
    match item.get("type", "message"):
        case "message":
            _needs(item, name, "role", "content")
            if not isinstance(item["content"], str | list):
                raise invalid(f"{name}.content", "a text or a list of parts")
        case "function_call":
            _needs(item, name, "call_id", "name", "arguments")
        case "function_call_output":
            _needs(item, name, "call_id", "output")
        case "item_reference":
            _needs(item, name, "id")


def _needs(item: Fields, name: str, *fields: str) -> None:
    for field in fields:
        if item.get(field) is None:
            raise missing(f"{name}.{field}")
        if field not in ("content", "output") and not is_text(item[field]):
            raise invalid(f"{name}.{field}", "a text")
