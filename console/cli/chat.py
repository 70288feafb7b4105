"""headrace chat: talk to a model in the terminal, streamed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from console.cli.client import CliError, Server, door, first_models
from console.cli.output import DATA, Data, Json, show_json

_TIMEOUT_S = 600.0
Turn = dict[str, str]


def chat(
    message: Annotated[str | None, typer.Argument(help="One question; without it a conversation begins.")] = None,
    model: Annotated[str, typer.Option(help="Which model (the first one).")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Ask a model and watch the answer arrive."""
    server = door(data)
    chosen = model or _first_model(server, first_models(data))
    limits = {} if max_tokens is None else {"max_tokens": max_tokens}
    if message is not None:
        answer = _say(server, chosen, [{"role": "user", "content": message}], limits, quiet=as_json)
        return show_json({"model": chosen, "answer": answer}) if as_json else None
    return _converse(server, chosen, limits)


def _converse(server: Server, model: str, limits: dict[str, Any]) -> None:
    """Until an empty line or end of input."""
    typer.echo(f"Talking to {model}. An empty line ends it.", err=True)
    turns: list[Turn] = []
    while line := _line():
        turns.append({"role": "user", "content": line})
        turns.append({"role": "assistant", "content": _say(server, model, turns, limits)})


def _line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _say(server: Server, model: str, turns: list[Turn], limits: dict[str, Any], *, quiet: bool = False) -> str:
    """The answer, printed as it arrives. CliError when it breaks off."""
    said: list[str] = []
    for piece in _pieces(server, {"model": model, "messages": turns, "stream": True, **limits}):
        said.append(piece)
        if not quiet:
            sys.stdout.write(piece)
            sys.stdout.flush()
    if not quiet:
        typer.echo()
    return "".join(said)


def _pieces(server: Server, body: dict[str, Any]) -> Iterator[str]:
    """Texts of the answer's events."""
    with server.open("POST", "/v1/chat/completions", body, _TIMEOUT_S) as answer:
        for raw in answer:
            line = raw.strip()
            if not line.startswith(b"data:"):
                continue
            if line == b"data: [DONE]":
                return
            event = json.loads(line[5:])
            if "error" in event:
                raise CliError(f"the answer broke off: {event['error'].get('message', 'no reason given')}")
            for choice in event.get("choices", ()):
                yield choice.get("delta", {}).get("content") or ""


def _first_model(server: Server, preferred: Sequence[str]) -> str:
    """Of what is served, the first that `headrace up` brought along: others may be no models to chat with."""
    with server.open("GET", "/v1/models", None, 30.0) as answer:
        found = json.loads(answer.read())["data"]
    if not found:
        raise CliError("no model is ready; add one with `headrace models add NAME --url URL --wait`")
    served = [str(model["id"]) for model in found]
    return next((name for name in preferred if name in served), served[0])
