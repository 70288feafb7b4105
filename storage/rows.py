"""Records as rows and back: the columns of a table are the fields of its record, in order."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")


class Row(Protocol):
    """A row of a result, by column name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Table(Generic[R]):
    """How one kind of record lies in its table."""

    def __init__(self, record: type[R]) -> None:
        kinds = record.__annotations__
        self._record = record
        self.columns = tuple(kinds)
        self._arrays = tuple(str(kind).startswith("tuple") for kind in kinds.values())
        self._values = attrgetter(*self.columns)

    def values(self, record: R) -> tuple[Any, ...]:
        """A record's fields in order, as parameters or as a row to copy."""
        taken: tuple[Any, ...] = self._values(record)
        return taken

    def build(self, row: Row) -> R:
        """The record of a row; arrays become tuples, as records are frozen."""
        columns = zip(self.columns, self._arrays, strict=True)
        return self._record(**{name: tuple(row[name]) if array else row[name] for name, array in columns})
