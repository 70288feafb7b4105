"""headrace requests: the record of ended ones. headrace trace: one run's timeline."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console.cli.client import admin, segment
from console.cli.output import DATA, Data, Json, moment, show_fields, show_json, show_rows

app = typer.Typer(help="Requests that have ended, from the record.", no_args_is_help=True)

_COLUMNS = (
    ("ENDED", "ended_ms"),
    ("RUN", "run"),
    ("MODEL", "model"),
    ("OUTCOME", "outcome"),
    ("CODE", "code"),
    ("IN", "prompt_tokens"),
    ("OUT", "completion_tokens"),
    ("TTFT ms", "ttft_ms"),
    ("TOOK ms", "duration_ms"),
)


@app.command("list")
def list_requests(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    tenant: str = "",
    key: Annotated[str, typer.Option(help="Key id.")] = "",
    model: str = "",
    outcome: Annotated[str, typer.Option(help="completed, failed, refused, cancelled.")] = "",
    status: Annotated[int | None, typer.Option(help="HTTP status.")] = None,
    after: Annotated[str, typer.Option(help="`next` of the page before.")] = "",
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Newest first."""
    query = {"limit": limit, "tenant": tenant, "key_id": key, "model": model, "outcome": outcome, "status": status}
    found = admin(data).ask("GET", "/requests", query={**query, "after": after})
    if as_json:
        return show_json(found)
    show_rows(found["data"], _COLUMNS, "No requests have ended yet.")
    if found.get("next"):
        typer.echo(f"More: headrace requests list --after {found['next']}", err=True)
    return None


@app.command()
def show(run: str, data: Data = DATA, as_json: Json = False) -> None:
    """Everything recorded of one request; never what it said."""
    found = admin(data).ask("GET", f"/requests/{segment(run)}")
    return show_json(found) if as_json else show_fields(found)


def trace(
    run: Annotated[str, typer.Argument(help="The run id: header x-request-id of the answer.")],
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """What happened to one run, in order, live or ended."""
    found = admin(data).ask("GET", f"/trace/{segment(run)}")
    if as_json:
        return show_json(found)
    typer.echo(f"{found['run']}  {found['state']}")
    rows = _steps(found["timeline"])
    return show_rows(rows, (("TIME", "at"), ("+ms", "after"), ("EVENT", "event"), ("DETAIL", "detail")), "Nothing yet.")


def _steps(timeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Moments with the milliseconds since the first."""
    first = timeline[0]["at_ms"] if timeline else 0
    return [{**row, "at": moment(row["at_ms"]), "after": str(row["at_ms"] - first)} for row in timeline]
