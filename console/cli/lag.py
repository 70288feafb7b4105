"""headrace lag: the backlog of every consumer group."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from console.cli.client import Server, admin
from console.cli.output import DATA, Data, Json, console, make_table, show_json

_COLUMNS = (
    ("STREAM", "stream"),
    ("GROUP", "group"),
    ("LENGTH", "length"),
    ("LAG", "lag"),
    ("PENDING", "pending"),
    ("OLDEST ms", "oldest_ms"),
    ("CONSUMERS", "consumers"),
)


def lag(
    watch: Annotated[bool, typer.Option("--watch", help="Again and again until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Entries not yet read (lag) and not yet finished (pending), by group."""
    server = admin(data)
    if as_json or not watch:
        found = server.ask("GET", "/lag")
        return show_json(found) if as_json else console().print(_picture(found))
    return _watch(server, interval)


def _watch(server: Server, interval: float) -> None:
    pause = threading.Event()
    with Live(_picture(server.ask("GET", "/lag")), console=console(), auto_refresh=False) as live:
        while not pause.wait(interval):
            live.update(_picture(server.ask("GET", "/lag")), refresh=True)


def _picture(found: dict[str, Any]) -> Group:
    return Group(make_table(found["data"], _COLUMNS), Text(f"live runs {found['live']}, dead letters {found['dead']}"))
