"""headrace config: the settings file with every section and its defaults, to start one's own from."""

from __future__ import annotations

import typer

from base.shipped import shipped

settings = typer.Typer(help="Settings.", no_args_is_help=True)


@settings.callback()
def config() -> None:
    """Keeps `sample` a command of its own while it is the only one."""


@settings.command()
def sample() -> None:
    """Print a headrace.yaml with every section and its default: headrace config sample > headrace.yaml."""
    typer.echo(shipped("console", "headrace.sample.yaml"), nl=False)
