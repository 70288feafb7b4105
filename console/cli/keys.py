"""headrace keys: create, list, rotate, revoke."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console.cli.client import admin, segment
from console.cli.output import DATA, Data, Json, show_json, show_rows

app = typer.Typer(help="API keys: who may use what, and how much.", no_args_is_help=True)

_COLUMNS = (
    ("KEY", "key_id"),
    ("NAME", "name"),
    ("TENANT", "tenant"),
    ("STATE", "state"),
    ("SCOPES", "scopes"),
    ("MODELS", "models"),
    ("RPM", "requests_per_minute"),
    ("AT ONCE", "concurrency"),
    ("CREATED", "created_ms"),
    ("EXPIRES", "expires_ms"),
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="For people: who or what will use it.")],
    tenant: Annotated[str, typer.Option(help="The organization it belongs to.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="inference, admin; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model or pattern with *; may be repeated.")] = None,
    rpm: Annotated[int, typer.Option(help="Requests per minute; 0 = no limit.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Requests at once; 0 = no limit.")] = 0,
    weight: Annotated[int, typer.Option(help="Share when engines are scarce.")] = 1,
    priority: Annotated[int, typer.Option(help="Among its tenant's waiting requests the higher goes first.")] = 0,
    lane: Annotated[str, typer.Option(help="interactive or batch.")] = "interactive",
    on_disconnect: Annotated[
        str, typer.Option(help="When its clients leave: cancel, finish, grace:SECONDS (its model's).")
    ] = "",
    expires_in_days: Annotated[float, typer.Option(help="0 = never.")] = 0,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Make a key. Its token is shown this once."""
    wish = {
        "name": name,
        "tenant": tenant,
        "scopes": scope or ["inference"],
        "models": model or ["*"],
        "requests_per_minute": rpm,
        "concurrency": concurrency,
        "weight": weight,
        "priority": priority,
        "lane": lane,
        "on_disconnect": on_disconnect,
        "expires_in_s": round(expires_in_days * 86_400),
    }
    _show_token(admin(data).ask("POST", "/keys", wish), as_json)


@app.command("list")
def list_keys(
    all: Annotated[bool, typer.Option("--all", help="Also revoked and expired ones.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Keys in use."""
    found = admin(data).ask("GET", "/keys", query={"all": "true" if all else ""})
    if as_json:
        return show_json(found)
    return show_rows(found["data"], _COLUMNS, "No keys. Make one: headrace keys create NAME")


@app.command()
def rotate(
    key_id: str,
    overlap: Annotated[int | None, typer.Option(help="Seconds the old secret stays valid (a day).")] = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """A new token for a key; the old one goes on for a while."""
    body = {} if overlap is None else {"overlap_s": overlap}
    _show_token(admin(data).ask("POST", f"/keys/{segment(key_id)}/rotate", body), as_json)


@app.command()
def revoke(key_id: str, data: Data = DATA, as_json: Json = False) -> None:
    """End a key everywhere, for good."""
    found = admin(data).ask("DELETE", f"/keys/{segment(key_id)}")
    if as_json:
        return show_json(found)
    return typer.echo(f"Revoked {found['key_id']} ({found['name']}).")


def _show_token(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return show_json(found)
    typer.echo(f"Key {found['key_id']} ({found['name']}). The token is shown only now:", err=True)
    return typer.echo(found["token"])
