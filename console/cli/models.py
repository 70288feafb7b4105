"""headrace models: what should be served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from console.cli import deployments
from console.cli.client import CliError, admin, segment
from console.cli.output import DATA, Data, Json, show_json, show_rows

app = typer.Typer(help="Models: what should be served.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Base address of an OpenAI-compatible server, including /v1.")]
KeyVariable = Annotated[str, typer.Option(help="Environment variable that holds the key for that server.")]
Upstream = Annotated[str, typer.Option(help="What that server calls the model (ask it).")]
Deployment = Annotated[str, typer.Option(help="Name of the deployment (the model's).")]
Pool = Annotated[str, typer.Option(help="Pool it joins (the model's name).")]
Slots = Annotated[int, typer.Option(help="Requests it takes at once.")]
Weight = Annotated[int, typer.Option(help="Its share within the pool.")]
Private = Annotated[bool, typer.Option("--private", help="The name in the URL may lead to a private address.")]
Replicas = Annotated[int | None, typer.Option(min=0, help="Engines to run of the command (1, or as it was scaled).")]
Restart = Annotated[str, typer.Option(help="When the engine ends by itself: always, on-failure, never.")]
Continues = Annotated[
    str, typer.Option("--continue", help="How it continues a broken answer: continue_final_message or prefill (not).")
]
Speaks = Annotated[list[str] | None, typer.Option(help="An API it speaks: chat, responses; may be repeated (chat).")]
Leaving = Annotated[str, typer.Option(help="When clients leave: cancel, finish, grace:SECONDS (server's).")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is ready; exit code 2 when it fails.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.")]


@app.command()
@deployments.app.command("create")
def add(
    name: Annotated[str, typer.Argument(help="The name clients ask for.")],
    url: Url = "",
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: a program to run here; {port} is filled in.")
    ] = None,
    api_key_env: KeyVariable = "",
    upstream: Upstream = "",
    deployment: Deployment = "",
    pool: Pool = "",
    slots: Slots = 8,
    weight: Weight = 1,
    private: Private = False,
    replicas: Replicas = None,
    restart: Restart = "always",
    continues: Continues = "",
    on_disconnect: Leaving = "",
    speaks: Speaks = None,
    wait: Wait = False,
    timeout: Timeout = 120.0,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Serve a model: at a URL, or by a command on the server's machine."""
    if bool(url) == bool(command):
        raise CliError("give either --url URL or, after --, a command such as: -- my-engine --port {port}")
    entry = {
        "name": name,
        "url": url,
        "command": command or [],
        "api_key": _variable(api_key_env),
        "upstream_model": upstream,
        "deployment": deployment,
        "pool": pool,
        "slots": slots,
        "weight": weight,
        "private": private,
        "replicas": replicas,
        "restart": restart,
        "continues": continues,
        "on_disconnect": on_disconnect,
        "speaks": speaks or ["chat"],
    }
    server = admin(data)
    found = server.ask("POST", "/models", entry)
    if wait:
        found = deployments.wait_ready(server, found["deployment"], timeout)
    if as_json:
        return show_json(found)
    word = "is ready" if wait else "was asked for; `headrace deployments list` tells how it goes"
    return typer.echo(f"{name} {word}.")


@app.command()
def apply(
    config: Annotated[Path | None, typer.Option(help="Settings file [./headrace.yaml].")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Stop deployments that the file does not name.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Read `models:` of headrace.yaml again and ask for what it says; what stands already is left alone."""
    from console.config import SettingsError, load

    try:
        entries = load(config).models
    except SettingsError as error:
        raise CliError(str(error)) from None
    server = admin(data)
    bodies = [{**entry.model_dump(mode="json"), "api_key": entry.api_key.get_secret_value()} for entry in entries]
    wanted = [server.ask("POST", "/models", body)["deployment"] for body in bodies]
    found = server.ask("GET", "/deployments")["data"] if prune else []
    stopped = [row["deployment"] for row in found if row["deployment"] not in wanted]
    for name in stopped:
        server.ask("DELETE", f"/deployments/{segment(name)}")
    if as_json:
        return show_json({"deployments": wanted, "stopping": stopped})
    return typer.echo(f"Asked for: {', '.join(wanted) or 'nothing'}. Stopping: {', '.join(stopped) or 'nothing'}.")


@app.command("list")
def list_models(data: Data = DATA, as_json: Json = False) -> None:
    """Models and how many of their deployments are ready."""
    found = admin(data).ask("GET", "/models")
    if as_json:
        return show_json(found)
    rows = [{**row, "of": f"{row['ready']}/{len(row['deployments'])}"} for row in found["data"]]
    return show_rows(
        rows, (("MODEL", "name"), ("READY", "of")), "No models. Add one: headrace models add NAME --url URL"
    )


@app.command()
def remove(name: str, data: Data = DATA, as_json: Json = False) -> None:
    """Stop everything that serves a model."""
    found = admin(data).ask("DELETE", f"/models/{segment(name)}")
    if as_json:
        return show_json(found)
    return typer.echo(f"Stopping {', '.join(found['stopping'])}.")


def _variable(name: str) -> str:
    """The value of an environment variable, so that keys need not stand on the command line."""
    if not name:
        return ""
    value = os.environ.get(name, "")
    if not value:
        raise CliError(f"the environment variable {name} is not set; export it with the server's key and try again")
    return value
