"""headrace guardrails test: what the rules find in a text."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.client import admin
from console.cli.output import DATA, Data, Json, show_json, show_rows

app = typer.Typer(help="Guardrails: what is looked for in requests.", no_args_is_help=True)

_COLUMNS = (
    ("KIND", "kind"),
    ("ACTION", "action"),
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
    text: str,
    model: Annotated[str, typer.Option(help="Under the policy of this model.")] = "",
    key: Annotated[str, typer.Option(help="Under the policy of this key id.")] = "",
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """What would happen to a request with this text. Exit code 1 when it would be blocked."""
    found = admin(data).ask("POST", "/guardrails/scan", {"text": text, "model": model, "key_id": key})
    if as_json:
        show_json(found)
    else:
        show_rows(found["findings"], _COLUMNS, "Nothing found.")
        typer.echo(found["message"] or f"{found['outcome']}: {found['text']}")
    raise typer.Exit(1 if found["outcome"] == "refuse" else 0)
