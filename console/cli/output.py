"""How answers look: tables for people, JSON with --json for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from console.cli.client import DEFAULT_DATA

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Data = Annotated[Path, typer.Option("--data", help="Folder of the server that `headrace up` started.")]
DATA = DEFAULT_DATA

_SPANS = ("ttft_ms", "duration_ms", "oldest_ms", "idle_ms")  # milliseconds that are no moments

_WHOLE = ("RUN", "KEY", "CONSUMER", "OUTCOME", "STATE")  # what is typed or searched for is not broken over lines
_DATE = 10  # columns: a moment is broken between day and time at most

#: (heading, field) of one column; dots lead into nested values, `_ms` fields are shown as times.
Column = tuple[str, str]


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], empty: str) -> None:
    """A table, or one line saying that there is nothing and what to do."""
    if not rows:
        typer.echo(empty)
        return
    table = make_table(rows, columns)
    console().print(table)


def make_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    """Rows as a table without lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, field in columns:
        width = _DATE if _is_moment(field) else None
        table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE, min_width=width)
    for row in rows:
        table.add_row(*(_cell(row, field) for _, field in columns))
    return table


def show_fields(found: Mapping[str, Any]) -> None:
    """One thing, a field a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in found:
        table.add_row(name if name in _SPANS else name.removesuffix("_ms"), _cell(found, name))
    console().print(table)


def show_json(found: object) -> None:
    """For programs: stable keys, one document."""
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def console() -> Console:
    """Standard output; wide when it is not a terminal, so that nothing is cut for programs."""
    return Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False, emoji=False)


def moment(ms: object) -> str:
    """Milliseconds since the epoch as a time, "-" for never."""
    if not isinstance(ms, int) or ms <= 0:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _is_moment(field: str) -> bool:
    return field.endswith("_ms") and field not in _SPANS


def _cell(row: Mapping[str, Any], field: str) -> str:
    value: Any = row
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if _is_moment(field):
        return moment(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if all(isinstance(item, str) for item in value) else json.dumps(value)
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)
