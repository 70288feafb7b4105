"""The program `headrace`: registers every command, and turns whatever goes wrong into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from console.cli import deployments, dlq, fleet, guardrails, keys, lag, machine, models, requests, route, setup
from console.cli.chat import chat
from console.cli.client import CliError
from console.cli.samples import settings


def build() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="headrace",
        help="An event-driven gateway for language models.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    _add_up(app)
    app.add_typer(keys.app, name="keys")
    app.add_typer(models.app, name="models")
    app.add_typer(deployments.app, name="deployments")
    app.add_typer(requests.app, name="requests")
    app.command()(requests.trace)
    app.add_typer(route.app, name="route")
    app.add_typer(dlq.app, name="dlq")
    app.command()(fleet.status)
    app.command()(lag.lag)
    app.command()(fleet.scale)
    app.command()(fleet.drain)
    app.add_typer(guardrails.app, name="guardrails")
    app.add_typer(settings, name="config")
    app.command()(chat)
    app.command()(machine.doctor)
    app.add_typer(machine.topology, name="topology")
    app.command()(setup.init)
    app.add_typer(setup.migrate, name="migrate")
    app.add_typer(setup.secrets, name="secrets")
    app.command()(machine.version)
    return app


def _add_up(app: typer.Typer) -> None:
    """`up` and `start` bring the servers' code along; the others needn't wait for it."""
    from console.cli.start import start
    from console.cli.up import up

    app.command()(up)
    app.command()(start)


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. Errors are one line on stderr."""
    try:
        code = get_command(build()).main(args=list(arguments), prog_name="headrace", standalone_mode=False)
    except CliError as error:
        return _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader of our output has enough: `headrace requests list | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it at exit
        return 0
    except Exception as error:
        said = getattr(error, "format_message", None)  # a usage error, of click or of typer's own copy of it
        if said is None:
            raise
        return _complain(str(said()))
    return code if isinstance(code, int) else 0


def _complain(text: str) -> int:
    if text:  # nothing is left to say where the help was shown instead
        typer.echo(f"error: {' '.join(text.split())}", err=True)
    return 2


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
