"""`headrace start ROOM ...`: more processes for a system that runs already, here or on any machine that sees its
servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from base.ids import SystemRandom
from base.settings import SettingsError
from console.join import JoinError, join, with_any_health_port
from console.launch import LaunchError
from console.replicas import Replicas
from console.stack import LISTENING, LayoutError, choose_rooms
from console.supervisor import Signals

Rooms = Annotated[
    list[str],
    typer.Argument(
        help="ingress, authorization, rules, persons, guardrails (rules and persons), router, audit, provisioner, "
        "console, or all."
    ),
]


def start(
    rooms: Rooms,
    data: Annotated[Path | None, typer.Option(help="Folder of the `headrace up` to join [./.headrace].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of an ingress (the settings', else any free one).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="So many processes with these rooms.")] = 1,
    config: Annotated[Path | None, typer.Option(help="Settings file (the one that `headrace up` read).")] = None,
) -> None:
    """Run these rooms here, joined to a running system; Ctrl-C or SIGTERM drains and stops them.

    Servers of the settings (redis.url, postgres.dsn) come first, else those of the `headrace up` on --data."""
    try:
        chosen = choose_rooms(rooms)
        if workers > 1 and (listening := [room for room in chosen if room in LISTENING]):
            raise LayoutError(f"--workers: {listening[0]} listens on one port; start the others with --port")
        settings = join(chosen, data, config, port)
    except (JoinError, LaunchError, LayoutError, SettingsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    from console import rooms as house  # drivers and rooms: only once it is clear that they will run

    if workers == 1:
        return house.serve(chosen, settings, _say_ready)
    signals = Signals()

    def work(number: int) -> None:
        house.serve(chosen, settings if number == 0 else with_any_health_port(settings), _say_ready)

    code = Replicas(work, signals, SystemRandom(), lambda text: typer.echo(text, err=True)).run(workers)
    raise typer.Exit(code)


def _say_ready(message: dict[str, Any]) -> None:
    """One line for people and scripts, on stderr like the logs."""
    where = [f"{room} at {url}" for room, url in message["addresses"].items()]
    shown = "; ".join([", ".join(message["rooms"]), *where, f"health on port {message['health_port']}"])
    typer.echo(f"Ready: {message['consumer']} ({shown})", err=True)
