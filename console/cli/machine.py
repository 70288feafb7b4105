"""headrace doctor, topology, version: what works without a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from base.version import version as installed
from console.cli.output import DATA, Data, Json, show_json, show_rows

topology = typer.Typer(help="The streams and groups of streams.yaml.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option(help="Settings file [./headrace.yaml when there is one].")]
File = Annotated[Path | None, typer.Option("--file", help="Another streams.yaml (the installed one).")]


def doctor(config: Config = None, data: Data = DATA, as_json: Json = False) -> None:
    """Look for what would keep Headrace from running well. Exit code 1 when something must be mended."""
    from console.doctor import examine

    found = [finding.shape() for finding in examine(data, config)]
    if as_json:
        show_json({"data": found})
    else:
        show_rows(found, (("", "mark"), ("WHAT", "name"), ("FOUND", "detail"), ("REMEDY", "remedy")), "")
    raise typer.Exit(1 if any(row["verdict"] == "bad" for row in found) else 0)


@topology.command()
def check(file: File = None, as_json: Json = False) -> None:
    """Every mistake of streams.yaml at once, with its line."""
    from console.topology import mistakes

    found = mistakes(file)
    if as_json:
        show_json({"mistakes": found})
    elif found:
        typer.echo("\n".join(found), err=True)
    else:
        typer.echo("The topology is sound.")
    raise typer.Exit(2 if found else 0)


@topology.command()
def apply(config: Config = None, as_json: Json = False) -> None:
    """Create the declared groups on the server of the settings, drop those no longer declared."""
    from console.topology import apply_to_server

    done = apply_to_server(config)
    if as_json:
        return show_json({"done": done})
    return typer.echo("\n".join(done) or "Everything was there.")


@topology.command()
def show(file: File = None, as_json: Json = False) -> None:
    """Streams, who may write and who reads."""
    from console.topology import rows

    found = rows(file)
    columns = (("STREAM", "stream"), ("KEY", "key"), ("WRITTEN BY", "publishers"), ("READ BY", "groups"))
    return show_json({"data": found}) if as_json else show_rows(found, columns, "")


@topology.command()
def acl(
    processes: Annotated[
        list[str] | None, typer.Argument(help="Rooms of a process, as `rules` or `rules,persons` (one for each room).")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="For strict runs: the ingress may use WAITAOF and CONFIG GET.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Redis users that may do what their rooms do and nothing else, with new passwords: lines for the server's aclfile,
    and the addresses for `redis.urls`."""
    from console.cli.client import CliError
    from console.stack import LayoutError
    from console.topology import users

    try:
        found = users(processes or (), strict=strict)
    except LayoutError as error:
        raise CliError(str(error)) from None
    if as_json:
        return show_json({"data": found})
    addresses = [f"    {row['rooms']}: redis://{row['user']}:{row['password']}@HOST:6379/0" for row in found]
    lines = ["# for the server's aclfile; as a command, `ACL SETUSER` takes each without its first word"]
    lines += [row["line"] for row in found]
    lines += ["", "# for headrace.yaml, with the server's HOST", "redis:", "  urls:", *addresses]
    return typer.echo("\n".join(lines))


def version(as_json: Json = False) -> None:
    """Which version this is."""
    found = installed()
    return show_json({"version": found}) if as_json else typer.echo(f"headrace {found}")
