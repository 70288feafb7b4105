"""headrace route explain: why a request went where it went, or where the next one would go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from base.ids import is_run_id
from console.cli.client import CliError, admin, segment
from console.cli.output import DATA, Data, Json, show_json, show_rows

app = typer.Typer(help="Which endpoint requests go to, and why.", no_args_is_help=True)

_COLUMNS = (
    ("ENDPOINT", "endpoint"),
    ("STATE", "state"),
    ("IN USE", "in_use"),
    ("SLOTS", "slots"),
    ("WEIGHT", "weight"),
    ("TTFT ms", "ttft"),
    ("PEAK ms", "peak"),
    ("PRICE", "price"),
    ("CHOSEN", "chosen"),
)


_NEVER = "It never came to a router: `headrace trace` shows how far it came."


@app.callback()
def route() -> None:
    """Which endpoint requests go to, and why."""


@app.command()
def explain(
    run: Annotated[str, typer.Argument(help="The run id of a request that has ended.")] = "",
    model: Annotated[str, typer.Option(help="Instead of a run: what would be chosen for this model now.")] = "",
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Which endpoints could be chosen, their figures, and why each other one could not."""
    if bool(run) == bool(model):
        raise CliError("give either a run id (header x-request-id of an answer) or --model NAME")
    if run and not is_run_id(run):
        raise CliError(f"{run} is not a run id (header x-request-id of an answer); for a model: --model {run}")
    path = f"/requests/{segment(run)}/route" if run else f"/routes/{segment(model)}"
    found = admin(data).ask("GET", path)
    if as_json:
        return show_json(found)
    return _show_run(found) if run else _show_now(found)


def _show_run(found: Mapping[str, Any]) -> None:
    outcome = f"{found['outcome']} {found['code']}".strip()
    typer.echo(f"{found['run']}  {found['model']}  {outcome}")
    for number, attempt in enumerate(found["attempts"], 1):
        went = attempt["endpoint"] or "no endpoint could be called"
        status = f" status {attempt['status']}" if attempt["status"] else ""
        span = f"{attempt['started_ms']}..{attempt['ended_ms']} ms after the claim"
        typer.echo(f"\nAttempt {number}: {went}: {attempt['outcome']}{status}, {span}")
        _show_why(attempt.get("why"), attempt["endpoint"])
    if not found["attempts"]:
        answered = found["outcome"] == "completed"
        typer.echo("It was answered without an engine." if answered else _NEVER)


def _show_now(found: Mapping[str, Any]) -> None:
    typer.echo(f"{found['model']}: {found['endpoint'] or 'no endpoint could be called'}")
    _show_why(found["why"], found["endpoint"])


def _show_why(why: Mapping[str, Any] | None, chosen: str) -> None:
    if not why:
        typer.echo("What it was chosen from was not recorded.")
        return
    more = why["of"] - len(why["seen"])
    rest = f", {more} more not shown" if more > 0 else ""
    typer.echo(f"pool {why['pool']}, strategy {why['strategy']}, {why['of']} endpoints{rest}")
    rows = [
        {**one, "ttft": one["ttft_ms"], "peak": one["peak_ms"], "chosen": one["endpoint"] == chosen}
        for one in why["seen"]
    ]
    show_rows(rows, _COLUMNS, "The pool has no endpoints. `headrace deployments list` shows what was asked for.")
