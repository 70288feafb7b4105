"""headrace status, scale, drain: which processes there are, how many, and which of them goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from base.clock import SystemClock
from console.cli.client import CliError, Server, admin, segment
from console.cli.output import DATA, Data, Json, console, make_table, show_json
from console.cli.wait import wait_until
from console.control_socket import ControlError, ask
from console.stack import LayoutError, room_of

Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait until it is so; 0: do not wait.")]

_SERVERS = (("SERVER", "name"), ("UP", "up"), ("REASON", "reason"))
_PROCESSES = (
    ("CONSUMER", "consumer"),
    ("ROOMS", "rooms"),
    ("HOST", "host"),
    ("PID", "pid"),
    ("UP FOR", "up_for"),
    ("STATE", "state"),
    ("HEALTH", "health"),
)
_GROUPS = (
    ("GROUP", "group"),
    ("LAG", "lag"),
    ("PENDING", "pending"),
    ("WAITING", "waiting"),
    ("OLDEST ms", "oldest_ms"),
    ("CONSUMERS", "consumers"),
)


def status(data: Data = DATA, as_json: Json = False) -> None:
    """Servers, processes, groups, deployments and trouble at one look. Exit code 1 when something is unhealthy."""
    found = admin(data).ask("GET", "/status")
    if as_json:
        show_json(found)
    else:
        _show(found)
    raise typer.Exit(0 if found["healthy"] else 1)


def _show(found: Mapping[str, Any]) -> None:
    now_ms = SystemClock().now_ms()
    rows = [{**row, "up_for": _span(now_ms - row["started_ms"])} for row in found["processes"]]
    for table in (
        make_table(found["servers"], _SERVERS),
        make_table(rows, _PROCESSES),
        make_table(found["groups"], _GROUPS),
    ):
        console().print(table)
        console().print()
    stand = found["deployments"]
    typer.echo(f"deployments {stand['ready']}/{stand['wanted']} ready, live runs {found['live']}, dead {found['dead']}")
    for word, lines in (("problem", found["problems"]), ("warning", found["warnings"])):
        for line in lines:
            typer.echo(f"{word}: {line}")
    typer.echo("healthy" if found["healthy"] else "unhealthy")


def _span(ms: int) -> str:
    """A span as its largest two units: 2d 3h, 5m 7s."""
    seconds = max(0, ms) // 1000
    units = [("d", seconds // 86_400), ("h", seconds // 3600 % 24), ("m", seconds // 60 % 60), ("s", seconds % 60)]
    first = next((at for at, (_, value) in enumerate(units) if value), 3)
    return " ".join(f"{value}{unit}" for unit, value in units[first : first + 2])


def scale(
    group: Annotated[
        str, typer.Argument(help="authorization, rules, persons, router, audit, ledger, archive, provisioner.")
    ],
    count: Annotated[int, typer.Argument(min=1, help="Processes that are to serve it.")],
    timeout: Timeout = 60.0,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Serve a group with so many processes of the `headrace up` on --data, until that one ends."""
    try:
        room = room_of(group)
        found = ask(data, {"do": "scale", "group": group, "count": count})
        wait_until(lambda: _stands(ask(data, {"do": "status"}), room, count), timeout)
        found = ask(data, {"do": "status"})
    except (ControlError, LayoutError) as error:
        raise CliError(str(error)) from None
    states = _states(found, room)
    if timeout and states["ready"] != count:
        raise CliError(
            f"{room} has {states['ready']} of {count} processes after {timeout:g} s: the logs of that room say why"
        )
    if as_json:
        return show_json(found)
    return typer.echo(f"{room}: " + ", ".join(f"{number} {state}" for state, number in states.items() if number))


def _states(found: Mapping[str, Any], room: str) -> dict[str, int]:
    """How many processes of the room are in each state."""
    states = [row["state"] for row in found["processes"] if room in row["rooms"]]
    return {state: states.count(state) for state in ("ready", "starting", "draining")}


def _stands(found: Mapping[str, Any], room: str, count: int) -> bool:
    """Whether so many are ready and nobody is on its way in or out."""
    return _states(found, room) == {"ready": count, "starting": 0, "draining": 0}


def drain(
    consumer: Annotated[str, typer.Argument(help="A name that `headrace status` shows, such as rules-1234-a1b2c3.")],
    force: Annotated[bool, typer.Option("--force", help="Also when it is the last process of a room.")] = False,
    timeout: Timeout = 60.0,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Have one process take nothing new, finish what it holds, give back the rest and end for good."""
    server = admin(data)
    found = server.ask("POST", f"/consumers/{segment(consumer)}/drain", {"force": force})
    gone = wait_until(_gone(server, consumer), timeout)
    if timeout and not gone:
        raise CliError(
            f"{consumer} still drains after {timeout:g} s: it holds open requests; `headrace status` shows it"
        )
    if as_json:
        return show_json({**found, "gone": gone})
    return typer.echo(f"{consumer} {'has drained and is gone' if gone else 'was asked to drain'}")


def _gone(server: Server, consumer: str) -> Callable[[], bool]:
    def look() -> bool:
        try:
            found = server.ask("GET", "/status")
        except CliError:
            return True  # it took the admin API with it
        return consumer not in {row["consumer"] for row in found["processes"]}

    return look
