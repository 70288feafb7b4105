"""headrace guardrails test: what the guardrails find in a text or a request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from console.cli.client import CliError, admin
from console.cli.output import DATA, Data, Json, show_json, show_rows

app = typer.Typer(help="Guardrails: what is looked for in requests.", no_args_is_help=True)

_COLUMNS = (
    ("KIND", "kind"),
    ("ACTION", "action"),
    ("WHERE", "pointer"),
    ("FROM", "start"),
    ("TO", "end"),
    ("RULE", "scanner"),
    ("SURE", "confidence"),
)


@app.callback()
def _group() -> None:
    """Keeps `test` a command of its own."""


@app.command()
def test(
    text: Annotated[str, typer.Argument(help="A text; or give --request.")] = "",
    request: Annotated[Path | None, typer.Option(help="A file with a request's JSON body; - reads stdin.")] = None,
    route: Annotated[str, typer.Option(help="The route that body is for.")] = "/v1/chat/completions",
    model: Annotated[str, typer.Option(help="Under the policy of this model.")] = "",
    key: Annotated[str, typer.Option(help="Under the policy of this key id.")] = "",
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """What would happen to a request with this text, or to this request. Exit code 1 when it would be blocked."""
    wanted = {"model": model, "key_id": key, **_what(text, request, route)}
    found = admin(data).ask("POST", "/guardrails/scan", wanted)
    if as_json:
        show_json(found)
    else:
        _show(found)
    raise typer.Exit(1 if found["outcome"] == "refuse" else 0)


def _what(text: str, request: Path | None, route: str) -> dict[str, Any]:
    """The text or the body to be judged. CliError."""
    if bool(text) == (request is not None):
        raise CliError("give either a text or --request FILE")
    if request is None:
        return {"text": text}
    try:
        return {"body": json.loads(sys.stdin.read() if str(request) == "-" else request.read_text()), "route": route}
    except (OSError, ValueError) as error:
        raise CliError(f"--request {request}: {error}") from None


def _show(found: dict[str, Any]) -> None:
    show_rows(found["findings"], _COLUMNS, "Nothing found.")
    typer.echo("Families: " + ", ".join(f"{name} {state}" for name, state in found.get("families", {}).items()))
    shown = found["text"] if found.get("body") is None else json.dumps(found["body"], ensure_ascii=False)
    typer.echo(found["message"] or f"{found['outcome']}: {shown}")
