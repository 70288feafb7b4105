"""`headrace up`: everything on this machine with one command. The steps are in console/launch.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from base.clock import SystemClock
from base.ids import SystemRandom
from base.settings import SettingsError
from console.cli.setup import say_unused
from console.embedded.errors import EmbeddedError
from console.entries import ModelEntry
from console.errands import ErrandError
from console.launch import LaunchError, Options, launch
from console.progress import make_say
from console.stack import LayoutError, Wiring, check_layout, parse_layout
from console.supervisor import StartError, Stopped
from schemas.errors import HeadraceError

#: Errors whose text is meant for the user: one line, exit code 2.
EXPECTED = (LaunchError, EmbeddedError, StartError, ErrandError, LayoutError, SettingsError, HeadraceError)


def up(
    data: Annotated[Path | None, typer.Option(help="Folder for data, logs and connection.json [./.headrace].")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 takes any free one.")] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="NAME=URL: serve this OpenAI-compatible engine; may be repeated.")
    ] = None,
    processes: Annotated[
        str | None, typer.Option(help="merged (ingress | workers), split (a process per room), or a,b|c,d.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file [./headrace.yaml when there is one].")] = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Do not start the small local models.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Stop deployments that nothing asks for any more.")] = False,
) -> None:
    """Start servers, rooms and a small model on this machine; Ctrl-C stops them and keeps the data.

    With REDIS_URL and DATABASE_URL only the rooms are started, on those servers (see `headrace init`).
    """
    try:
        options = choose(data, port, engine or (), processes, config, no_model, prune)
        launch(options, wiring(), make_say(), SystemClock(), SystemRandom())
    except EXPECTED as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except Stopped:
        raise typer.Exit(130) from None


def choose(
    data: Path | None,
    port: int | None,
    engines: Sequence[str],
    processes: str | None,
    config: Path | None,
    bare: bool,
    prune: bool,
) -> Options:
    """Command line over settings. SettingsError, LayoutError, LaunchError, OwnServerError: nothing is started."""
    from console.config import load
    from console.own import are_named

    settings = load(config, overrides={"data.directory": data, "server.port": port})
    say_unused(config)
    layout = parse_layout(processes) if processes else check_layout(settings.processes)
    found = config or (Path("headrace.yaml") if Path("headrace.yaml").exists() else None)
    return Options(
        data=settings.data.directory.absolute(),
        port=settings.server.port,
        layout=layout,
        config=found,
        engines=tuple(parse_engine(text) for text in engines),
        local_model=not bare,
        prune=prune,
        host=settings.server.host,
        keyring=settings.secrets.keyring.get_secret_value(),
        own_servers=are_named(settings),
        drain=(settings.server.drain_limit + 10, settings.runs.drain_s + 15),
    )


def parse_engine(text: str) -> tuple[str, str]:
    """NAME=URL. LaunchError shows the form."""
    name, _, url = text.partition("=")
    if not name or not url.startswith(("http://", "https://")):
        raise LaunchError(f"--engine {text!r} is not NAME=URL, for example --engine mistral=http://127.0.0.1:8000/v1")
    try:
        ModelEntry(name=name, url=url, private=True)
    except ValidationError as error:
        said = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
        raise LaunchError(f"--engine {name[:128]}=...: {said.removeprefix('Value error, ')}") from None
    return name, url


def wiring() -> Wiring:
    """The real rooms and the real bootstrap, imported here once, before the first fork: what only a child imports costs
    every one of them 0.7 s, also the one whose predecessor died under requests."""
    import console.wiring  # noqa: F401 - what rooms.run opens
    from console import bootstrap, rooms

    return Wiring(run_rooms=rooms.run, prepare=bootstrap.prepare, finish=bootstrap.finish)
