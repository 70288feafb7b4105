"""headrace init, migrate, secrets: own servers set up, their schema kept current, secrets made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from base.ids import SystemRandom
from base.settings import SettingsError
from console.cli.client import CliError
from console.cli.output import Json, show_json, show_rows
from schemas.errors import HeadraceError

if TYPE_CHECKING:
    from console.config import Settings
    from console.setup import Done

migrate = typer.Typer(help="The schema of the record.", no_args_is_help=True)
secrets = typer.Typer(help="Secrets for .env.", no_args_is_help=True)
Result = TypeVar("Result")

Config = Annotated[Path | None, typer.Option(help="Settings file [./headrace.yaml when there is one].")]


def init(
    check: Annotated[bool, typer.Option("--check", help="Only look; exit code 1 when something is missing.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Set up own servers: role, database, schema, streams with groups, first keys. Changes nothing the second time.

    Reads REDIS_URL and DATABASE_URL, and PG_ADMIN_USER with PG_ADMIN_PASSWORD where role and database are to be made.
    """
    settings = _load(config)
    say_unused(config)
    found = _run(_carried_out(settings, check, _quiet if as_json else _say))
    missing = sum(not done.there for done in found)
    if as_json:
        show_json({"data": [{"name": d.name, "there": d.there, "token": d.token} for d in found]})
    else:
        typer.echo(_conclusion(missing, check))
    raise typer.Exit(1 if check and missing else 0)


async def _carried_out(settings: Settings, check: bool, say: Callable[[Done, bool], None]) -> list[Done]:
    from console.setup import steps

    found = []
    async for done in steps(settings, only_look=check):
        say(done, check)
        found.append(done)
    return found


def _say(done: Done, check: bool) -> None:
    """One line for each thing; a token on a line of its own, to be copied."""
    state = "was there" if done.there else "missing" if check else "done"
    typer.echo(f"{state:<9}  {done.name}")
    if done.token:
        typer.echo(f"           {done.token}   (shown only now)")


def _quiet(done: Done, check: bool) -> None:
    """With --json everything is shown at the end."""


def _conclusion(missing: int, check: bool) -> str:
    if not missing:
        return "Everything was there; nothing was changed."
    if check:
        return f"{missing} missing at least: run `headrace init`."
    return "Ready: start the rooms with `headrace up`."


@migrate.command()
def status(config: Config = None, as_json: Json = False) -> None:
    """Every migration, applied or pending. Exit code 1 when one is pending.

    `pre` runs before new code is started and is safe under the old; `post` only after the last old process has gone.
    """
    from console.schema import rows

    found = _run(rows(_load(config)))
    if as_json:
        show_json({"data": found})
    else:
        show_rows(found, (("MIGRATION", "name"), ("PHASE", "phase"), ("STATE", "state")), "No migrations.")
    raise typer.Exit(1 if any(row["state"] == "pending" for row in found) else 0)


@migrate.command()
def up(
    post: Annotated[bool, typer.Option("--post", help="Also those that must wait until no old process runs.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Apply pending `pre` migrations, each in its own transaction; with --post all. An empty database gets all."""
    from console.schema import bring_up

    done = _run(bring_up(_load(config), post=post))
    if as_json:
        return show_json({"done": done})
    return typer.echo("\n".join(f"applied {name}" for name in done) or "Nothing was pending.")


@secrets.command()
def new() -> None:
    """A fresh SECRET_ENCRYPTION_KEY and an INTERNAL_API_KEY minted under it, as lines of .env."""
    from console.secrets import new_ring, new_token

    chance = SystemRandom()
    ring = new_ring(chance)
    typer.echo(f"SECRET_ENCRYPTION_KEY={ring.partition(':')[2]}")
    typer.echo(f"INTERNAL_API_KEY={new_token(ring, chance)}")


@secrets.command()
def key(config: Config = None) -> None:
    """Another INTERNAL_API_KEY, minted under the SECRET_ENCRYPTION_KEY of the settings."""
    from console.secrets import new_token

    typer.echo(f"INTERNAL_API_KEY={new_token(_ring(config), SystemRandom())}")


@secrets.command()
def rotate(config: Config = None) -> None:
    """SECRET_ENCRYPTION_KEY with a fresh key in front of the present ones, which go on opening what they sealed."""
    from console.secrets import with_new_key

    typer.echo(f"SECRET_ENCRYPTION_KEY={with_new_key(_ring(config), SystemRandom())}")


def _ring(config: Path | None) -> str:
    found: str = _load(config, without=("INTERNAL_API_KEY",)).secrets.keyring.get_secret_value()
    if not found:
        raise CliError("SECRET_ENCRYPTION_KEY (secrets.keyring) is not set; `headrace secrets new` makes the first")
    return found


def _load(config: Path | None, without: tuple[str, ...] = ()) -> Settings:
    """The settings; a variable of `without` counts as not set. CliError has every mistake."""
    from console.config import load

    try:
        return load(config, ignored=without)
    except SettingsError as error:
        raise CliError("; ".join(map(str, error.issues))) from None


def say_unused(config: Path | None) -> None:
    """A line for each variable that is set and means nothing here."""
    from console.config import unused_names

    for name in unused_names(config):
        typer.echo(f"Note: {name} is not used: there are no user accounts yet, keys are all there is.", err=True)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """CliError in the words of whatever refused."""
    try:
        return asyncio.run(work)
    except HeadraceError as error:
        raise CliError("; ".join(str(error).splitlines())) from None
