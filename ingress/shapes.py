"""What the fields of a request may be: the checks, their words for clients and for the document. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas.errors import Code, Failure, Refusal

_LONGEST_MODEL = 256  # characters


def model_of(fields: dict[str, Any]) -> str:
    model = fields.get("model")
    if model is None:
        raise missing("model")
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_MODEL:
        raise invalid("model", f"a text of 1 to {_LONGEST_MODEL} characters")
    return model


def check(fields: dict[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Refusal for the first of the fields that does not fit its shape."""
    for name, value in fields.items():
        shape = shapes.get(name)
        if shape is not None and value is not None and not shape.fits(value):
            raise invalid(name, shape.expected)


def needed(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise missing(name)
    return value


def missing(name: str) -> Refusal:
    return Refusal.of(Code.missing_required_parameter, f"Missing required parameter: '{name}'.", param=name)


def invalid(name: str, expected: str) -> Refusal:
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
    return type(value) is int and value >= 1  # a bool is an int too, and the most frequent fields are these


def _not_negative(value: Any) -> bool:
    return _whole(value) and value >= 0


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


class Shape(NamedTuple):
    """What a field must be when it is there: the check, its words for clients, and those of the document."""

    fits: Callable[[Any], bool]
    expected: str
    schema: Mapping[str, Any]


COUNT = Shape(_counted, "a whole number of at least 1", {"type": ["integer", "null"], "minimum": 1})
WHOLE = Shape(_whole, "a whole number", {"type": ["integer", "null"]})
NUMBER = Shape(_number, "a number", {"type": ["number", "null"]})
TEXT = Shape(is_text, "a text", {"type": ["string", "null"]})
FLAG = Shape(_is(bool), "true or false", {"type": ["boolean", "null"]})
LIST = Shape(_is(list), "a list", {"type": ["array", "null"]})
OBJECT = Shape(_is(dict), "an object", {"type": ["object", "null"]})
NOT_NEGATIVE = Shape(_not_negative, "a whole number of at least 0", {"type": ["integer", "null"], "minimum": 0})
PACKING = Shape(lambda value: value in ("float", "base64"), "'float' or 'base64'", {"enum": ["float", "base64", None]})
