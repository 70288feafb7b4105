"""headrace deployments: what runs, how it stands, how many there are of it, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from base.clock import SystemClock
from console.cli.client import PREFIX, CliError, Server, admin, segment
from console.cli.output import DATA, Data, Json, show_fields, show_json, show_rows

app = typer.Typer(help="Deployments: what runs, where, and how it stands.", no_args_is_help=True)

Judge = Callable[[dict[str, Any]], bool]
_POLL_S = 0.2
_SILENCE_S = 60.0  # a live log is pinged every 15 s
_COLUMNS = (
    ("DEPLOYMENT", "deployment"),
    ("MODEL", "name"),
    ("STATE", "state"),
    ("READY", "of"),
    ("URL", "url"),
    ("SLOTS", "slots"),
    ("RESTARTS", "restarts"),
    ("REASON", "reason"),
)
_ENGINES = (
    ("REPLICA", "replica"),
    ("STATE", "state"),
    ("PID", "pid"),
    ("RESTARTS", "restarts"),
    ("URL", "url"),
    ("REASON", "reason"),
    ("LAST LINE", "last_line"),
)
_HIDDEN = ("engines", "pids", "pid", "ready", "drain")

Replica = Annotated[int, typer.Option(min=1, help="Which of its engines.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.")]


@app.command("list")
def list_deployments(
    all: Annotated[bool, typer.Option("--all", help="Also stopped ones.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """What runs and how it stands."""
    found = admin(data).ask("GET", "/deployments", query={"all": "true" if all else ""})
    if as_json:
        return show_json(found)
    rows = [_listed(row) for row in found["data"]]
    return show_rows(rows, _COLUMNS, "No deployments. Add a model: headrace models add NAME --url URL")


@app.command()
def show(deployment: str, data: Data = DATA, as_json: Json = False) -> None:
    """One deployment, engine by engine, with the last line of those that are not ready."""
    found = admin(data).ask("GET", f"/deployments/{segment(deployment)}")
    if as_json:
        return show_json(found)
    show_fields({name: value for name, value in found.items() if name not in _HIDDEN})
    typer.echo("")
    return show_rows(found.get("engines", []), _ENGINES, "No engine runs.")


@app.command()
def scale(
    deployment: str,
    replicas: Annotated[int, typer.Argument(min=0, help="Engines it should have; 0: none for now.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until so many serve; exit code 2 when that fails.")] = False,
    timeout: Timeout = 600.0,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Have another number of engines. Surplus ones are ended when their requests have finished."""
    server = admin(data)
    found = server.ask("POST", f"/deployments/{segment(deployment)}/scale", {"replicas": replicas})
    if wait:
        found = wait_scaled(server, found, timeout)
    if as_json:
        return show_json(found)
    word = "now has" if wait else "is to have"
    return typer.echo(f"{deployment} {word} {replicas} {'engine' if replicas == 1 else 'engines'}.")


@app.command()
def stop(
    deployment: str,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for its running requests.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Take it out of rotation, let its requests finish, end it. Returns at once."""
    found = admin(data).ask("DELETE", f"/deployments/{segment(deployment)}", query={"now": "true" if now else ""})
    if as_json:
        return show_json(found)
    return typer.echo(f"Stopping {deployment}.")


@app.command()
def drain(deployment: str, timeout: Timeout = 600.0, data: Data = DATA, as_json: Json = False) -> None:
    """Take it out of rotation, let its requests finish, end it, and wait until it is gone."""
    server = admin(data)
    server.ask("POST", f"/deployments/{segment(deployment)}/drain")

    def gone(row: dict[str, Any]) -> bool:
        return _is(row, "stopped")

    found = _wait(server, deployment, timeout, gone, "is not drained (`headrace deployments stop --now` ends it)")
    return show_json(found) if as_json else typer.echo(f"{deployment} is drained and stopped.")


@app.command("logs")
def engine_logs(
    deployment: str,
    replica: Replica = 1,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the last lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with every line as it is written.")] = False,
    previous: Annotated[bool, typer.Option("--previous", help="Of its life before the present one.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """What a local engine wrote; it is kept over restarts."""
    if follow and (previous or as_json):
        raise CliError("--follow shows lines as they come; leave --previous and --json away")
    server, path = admin(data), f"/deployments/{segment(deployment)}/logs"
    if follow:
        return _follow(server, path, {"replica": replica, "lines": lines})
    asked = {"lines": lines, "replica": replica, "previous": "true" if previous else ""}
    found = server.ask("GET", path, query=asked)
    return show_json(found) if as_json else typer.echo(found["log"])


def wait_ready(server: Server, deployment: str, timeout_s: float) -> dict[str, Any]:
    """The deployment once all its engines are ready. CliError with its reason when it failed or is late."""

    def ready(row: dict[str, Any]) -> bool:
        wanted = row.get("replicas", 1)
        return _is(row, "ready" if wanted else "paused") and row.get("ready", wanted) >= wanted

    return _wait(server, deployment, timeout_s, ready, "is not ready", failed=_failed)


def wait_scaled(server: Server, asked: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The deployment once the command has been taken up and as many engines serve as were asked for, and no other one
    runs. CliError when it failed or is late."""
    replicas = asked["replicas"]

    def scaled(row: dict[str, Any]) -> bool:
        stands = _is(row, "ready" if replicas else "paused")
        return stands and row["replicas"] == row["ready"] == len(row["engines"]) == replicas

    def failed(row: dict[str, Any]) -> bool:
        return bool(row["command_id"] == asked["command_id"]) and _failed(row)

    return _wait(server, asked["deployment"], timeout_s, scaled, f"has not {replicas} engines", failed=failed)


def _wait(
    server: Server, deployment: str, timeout_s: float, done: Judge, late: str, *, failed: Judge = lambda _: False
) -> dict[str, Any]:
    clock, pause = SystemClock(), threading.Event()
    until, last = clock.monotonic() + timeout_s, "the provisioner has not taken it up yet"
    while clock.monotonic() < until:
        found = _state(server, deployment)
        if found is not None and done(found):
            return found
        if found is not None and failed(found):
            raise CliError(f"{deployment} failed: {_why(server, found)}")
        last = (found["reason"] or found["state"]) if found is not None else last
        pause.wait(_POLL_S)
    raise CliError(f"{deployment} {late} after {timeout_s:g} s: {last}")


def _is(row: dict[str, Any], state: str) -> bool:
    return bool(row["state"] == state)


def _failed(row: dict[str, Any]) -> bool:
    return _is(row, "failed")


def _state(server: Server, deployment: str) -> dict[str, Any] | None:
    rows = server.ask("GET", "/deployments", query={"all": "true"})["data"]
    return next((dict(row) for row in rows if row["deployment"] == deployment), None)


def _why(server: Server, row: dict[str, Any]) -> str:
    """The reason, and what the engine said last."""
    shown = server.ask("GET", f"/deployments/{segment(row['deployment'])}")
    said = next((engine["last_line"] for engine in shown.get("engines", []) if engine.get("last_line")), "")
    return f"{row['reason']}; its last line: {said}" if said else str(row["reason"])


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the list: how many of how many are ready."""
    return {**row, "of": f"{row.get('ready', '-')}/{row.get('replicas', 1)}"}


def _follow(server: Server, path: str, query: dict[str, int]) -> None:
    """Print lines until the server or the user ends it."""
    with server.open("GET", f"{PREFIX}{path}/live?{urlencode(query)}", None, _SILENCE_S) as answer:
        for line in _events(answer):
            typer.echo(line)


def _events(answer: HTTPResponse) -> Iterator[str]:
    """The data of server-sent events that are one line each."""
    while raw := answer.readline():
        if raw.startswith(b"data: "):
            yield raw[6:].decode("utf-8", "replace").rstrip("\r\n")
