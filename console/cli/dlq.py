"""headrace dlq: dead letters, and what to do with them."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.client import CliError, admin, segment
from console.cli.output import DATA, Data, Json, show_fields, show_json, show_rows

app = typer.Typer(help="Dead letters: entries that could not be handled.", no_args_is_help=True)

_COLUMNS = (
    ("ID", "id"),
    ("STREAM", "stream"),
    ("GROUP", "group"),
    ("STARTS", "starts"),
    ("RUN", "run"),
    ("REASON", "reason"),
)


@app.command("list")
def list_letters(
    count: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    after: Annotated[str, typer.Option(help="Only letters older than this id.")] = "",
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Newest first, with the reason."""
    found = admin(data).ask("GET", "/dlq", query={"count": count, "after": after})
    return show_json(found) if as_json else show_rows(found["data"], _COLUMNS, "No dead letters.")


@app.command()
def show(id: str, data: Data = DATA, as_json: Json = False) -> None:
    """One letter with its entry."""
    found = admin(data).ask("GET", f"/dlq/{segment(id)}")
    return show_json(found) if as_json else show_fields(found)


@app.command()
def replay(id: str, data: Data = DATA, as_json: Json = False) -> None:
    """Put the entry back on its stream."""
    found = admin(data).ask("POST", f"/dlq/{segment(id)}/replay")
    return show_json(found) if as_json else typer.echo(f"Replayed as {found['entry']}.")


@app.command()
def purge(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids; or --all.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Every letter there is now.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Drop letters for good."""
    chosen = list(ids or ())
    if bool(chosen) == all:
        raise CliError("name the letters to purge, or say --all; `headrace dlq list` shows them")
    server = admin(data)
    if all:
        chosen = [row["id"] for row in server.ask("GET", "/dlq", query={"count": 1000})["data"]]
    found = server.ask("POST", "/dlq/purge", {"ids": chosen}) if chosen else {"purged": 0}
    return show_json(found) if as_json else typer.echo(f"Purged {found['purged']}.")
