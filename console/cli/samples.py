"""headrace config: the two files to start one's own from, settings and .env, as they lie in the checkout."""

from __future__ import annotations

import typer

from base.shipped import shipped

settings = typer.Typer(help="Settings.", no_args_is_help=True)


@settings.command()
def sample() -> None:
    """Print a headrace.yaml with every section and its default: headrace config sample > headrace.yaml."""
    typer.echo(shipped("console", "headrace.sample.yaml"), nl=False)


@settings.command()
def env() -> None:
    """Print a .env for own servers, to fill in: headrace config env > .env."""
    typer.echo(shipped("console", ".env.sample"), nl=False)
