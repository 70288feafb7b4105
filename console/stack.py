"""What the pieces of one machine tell each other: layout of processes, source of settings, what runs where."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

#: Every room (a guardrail family counts as one), in pipeline order.
#: `guardrails` in a layout stands for its families.
FAMILIES = ("rules", "persons")
ROOMS = ("ingress", "authorization", "rules", "persons", "router", "audit", "provisioner", "console")

#: Asks a room process to drain while the rest of the system goes on: as SIGTERM, with time for long answers.
DRAIN = signal.SIGUSR1
#: Rooms that listen on a port of the settings: one process of each on a machine.
LISTENING = ("ingress", "console")
#: Groups that are not named like the room that serves them.
_ROOM_OF_GROUP = {"ledger": "audit", "archive": "audit"}

#: `processes:` by name. merged, the default: `ingress | workers`; split: one process per room.
LAYOUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "merged": (("ingress",), ROOMS[1:]),
    "split": tuple((room,) for room in ROOMS),
}


class LayoutError(ValueError):
    """A layout that leaves a room out, names one twice that must stand once, or invents one."""


def parse_layout(text: str) -> tuple[tuple[str, ...], ...]:
    """`merged`, `split`, or groups written `ingress|authorization,rules,persons|router,audit,provisioner,console`."""
    if text in LAYOUTS:
        return LAYOUTS[text]
    groups = [[room.strip() for room in group.split(",") if room.strip()] for group in text.split("|")]
    return check_layout(groups)


def check_layout(groups: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """The layout with every room in it. A worker room may stand in several processes, a listening one only once.
    LayoutError says what is wrong."""
    groups = [[name for room in group for name in _expand(room)] for group in groups]
    named = [room for group in groups for room in group]
    unknown = sorted(set(named) - set(ROOMS))
    missing = [room for room in ROOMS if room not in named]
    twice = sorted({room for room in LISTENING if named.count(room) > 1})
    again = sorted({room for group in groups for room in group if group.count(room) > 1})
    problems = (
        ("unknown room", unknown),
        ("room without a process", missing),
        ("listens on one port and stands once", twice),
        ("named twice in one process", again),
    )
    for problem, rooms in problems:
        if rooms:
            raise LayoutError(f"processes: {problem}: {', '.join(rooms)} (rooms: {', '.join(ROOMS)})")
    return tuple(tuple(group) for group in groups if group)


def room_of(group: str) -> str:
    """The room that serves a consumer group; a room's own name stands for itself. LayoutError for anything else."""
    room = _ROOM_OF_GROUP.get(group, group)
    if room not in ROOMS:
        raise LayoutError(f"there is no group {group!r}; groups: {', '.join([*ROOMS[1:-1], *_ROOM_OF_GROUP])}")
    return room


def choose_rooms(names: Sequence[str]) -> tuple[str, ...]:
    """Rooms by name in pipeline order, each once; `all` is every one, `guardrails` its families. LayoutError."""
    named = {room for name in names for room in (ROOMS if name == "all" else _expand(name))}
    if unknown := sorted(named - set(ROOMS)):
        raise LayoutError(f"unknown room: {', '.join(unknown)} (rooms: {', '.join(ROOMS)}, guardrails, all)")
    return tuple(room for room in ROOMS if room in named)


def _expand(room: str) -> tuple[str, ...]:
    return FAMILIES if room == "guardrails" else (room,)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a process reads its settings: arguments of base.settings.load. `overrides`: dotted key -> value."""

    file: Path | None
    dotenv: Path | None
    overrides: Mapping[str, Any] = field(default_factory=dict)


class RunRooms(Protocol):
    """The only call the supervisor makes into the rooms (console.cli.up leads it to console.rooms.run).

    It runs in a forked child, blocks until the rooms have stopped, and promises:
    - when its rooms are ready it writes one line {"rooms": [...], "pid": pid, "health_port": port, "consumer": name}
      to `ready_fd` (forks.write_message), and may close it then;
    - on SIGTERM it goes through its written stop sequence and returns (exit status 0); a second SIGTERM changes
      nothing, SIGKILL follows after the drain time; on DRAIN it does the same and gives its work more time;
    - a process that was ready and returns by itself was asked to go (`headrace drain`) and is not started again;
    - an exception ends the process with status 1 and its traceback in the log; the supervisor starts it again.
    """

    def __call__(self, rooms: list[str], source: Source, ready_fd: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Access:
    """What `console.bootstrap.finish` hands back. A key is "" when it existed before and is not known any more.
    engine_pids: `model:NAME` -> pid."""

    api_key: str
    admin_key: str
    models: tuple[str, ...]
    engine_pids: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What bootstrap has to reach: servers up, settings, models to publish through the pipeline.

    engines: (name, url) of --engine. local_model: the embedded model's name, "" for none; its command is
    `console.embedded.engine.command()`. local_embedder: the same for `console.embedded.minilm`. prune: stop deployments
    that nothing wants any more. known_api_key and known_admin_key: of an earlier start, "" for the first. own: the
    servers are the operator's, `headrace init` set them up.
    """

    source: Source
    base_url: str
    admin_url: str
    engines: tuple[tuple[str, str], ...] = ()
    local_model: str = ""
    local_embedder: str = ""
    prune: bool = False
    known_api_key: str = ""
    known_admin_key: str = ""
    own: bool = False


#: Tells the user what is being done, one short line.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wiring:
    """The functions behind `headrace up`, so that tests can start the machinery around rooms of their own.

    prepare: before the rooms run (check the server, migrate, apply the topology). finish: once they are ready (first
    keys, models through the pipeline, wait for health). Both run in a forked child and may use any loop or driver.
    """

    run_rooms: RunRooms
    prepare: Callable[[Plan, Say], None]
    finish: Callable[[Plan, Say], Access]
