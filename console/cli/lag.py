"""headrace lag: the backlog of every consumer group, or what each consumer holds."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from console.cli.client import Server, admin
from console.cli.output import DATA, Data, Json, console, make_table, show_json

_GROUPS = (
    ("STREAM", "stream"),
    ("GROUP", "group"),
    ("LAG", "lag"),
    ("PENDING", "pending"),
    ("WAITING", "waiting"),
    ("OLDEST ms", "oldest_ms"),
    ("CONSUMERS", "serving"),
    ("DLQ", "dead"),
)
_CONSUMERS = (
    ("CONSUMER", "consumer"),
    ("STREAM", "stream"),
    ("GROUP", "group"),
    ("PENDING", "pending"),
    ("IDLE ms", "idle_ms"),
    ("ALIVE", "alive"),
)


def lag(
    watch: Annotated[bool, typer.Option("--watch", help="Again and again until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    consumers: Annotated[
        bool, typer.Option("--consumers", help="What each consumer holds, instead of groups.")
    ] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Entries not yet read (lag) and not yet finished (pending), by group."""
    server, path = admin(data), "/consumers" if consumers else "/lag"
    if watch:
        return _watch(server, path, interval, as_json)
    found = server.ask("GET", path)
    return show_json(found) if as_json else console().print(_picture(found))


def _watch(server: Server, path: str, interval: float, as_json: bool) -> None:
    """A picture that changes in place on a terminal; elsewhere one after the other."""
    pause, screen = threading.Event(), console()
    if as_json or not screen.is_terminal:
        while True:
            found = server.ask("GET", path)
            show_json(found) if as_json else screen.print(_picture(found))
            pause.wait(interval)
    with Live(_picture(server.ask("GET", path)), console=screen, auto_refresh=False) as live:
        while not pause.wait(interval):
            live.update(_picture(server.ask("GET", path)), refresh=True)


def _picture(found: dict[str, Any]) -> Group:
    if "live" not in found:
        return Group(make_table(found["data"], _CONSUMERS))
    return Group(make_table(found["data"], _GROUPS), Text(f"live runs {found['live']}, dead letters {found['dead']}"))
