"""What the admin API answers, as models: FastAPI checks each answer against its model and documents it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection
from typing import Any, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, create_model


class Shape(BaseModel):
    """One answer. A field that is not declared is a mistake of ours, never dropped in silence."""

    model_config = ConfigDict(extra="forbid")


def like(name: str, record: type[Any], *, without: Collection[str] = (), **instead: Any) -> type[Shape]:
    """The fields of a record (dataclass or struct), all of them always there; `instead`: other or additional ones."""
    names = record.__struct_fields__ if issubclass(record, msgspec.Struct) else _names(record)
    kinds = get_type_hints(record)
    kept = {name: kinds[name] for name in names if name not in without}
    fields: dict[str, Any] = {field: (kind, ...) for field, kind in (kept | instead).items()}
    return create_model(name, __base__=Shape, __doc__=inspect.cleandoc(record.__doc__ or ""), **fields)


def _names(record: type[Any]) -> tuple[str, ...]:
    assert dataclasses.is_dataclass(record)
    return tuple(field.name for field in dataclasses.fields(record))


def listed(shape: type[Shape], **more: Any) -> type[Shape]:
    """Several of a kind under `data`, and what stands beside them."""
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in {"data": list[shape], **more}.items()}  # type: ignore[valid-type]
    return create_model(f"{shape.__name__}List", __base__=Shape, __doc__="Several of a kind.", **fields)


def example(record: type[Any], shape: type[Shape], **given: Any) -> dict[str, Any]:
    """An answer of that shape: what is given, the record's defaults for the rest."""
    defaults = {field.name: field.default for field in dataclasses.fields(record) if field.name not in given}
    return {name: given.get(name, defaults.get(name)) for name in shape.model_fields}
