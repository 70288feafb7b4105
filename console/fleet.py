"""The room processes of one machine as values, and what has to change for another number of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from console import forks
from console.embedded import processes
from console.stack import LISTENING

MOST_PROCESSES = 64  # of one room under one supervisor, which forks and watches them all


class ScaleError(ValueError):
    """A number of processes that cannot be; the text says why and what can."""


@dataclass(slots=True)
class RoomProcess:
    """One process and the rooms in it. name: of its log and its record, unique. beside: another process begins with
    the same room, so ports that are fixed for it are taken. planned: it is part of the layout. due: when to start it
    (monotonic), None while it runs. leaving: it was asked to go. heir_of: the consumer that died here last."""

    rooms: tuple[str, ...]
    name: str
    log: Path
    beside: bool = False
    planned: bool = False
    known: processes.Identity | None = None
    lines: forks.Lines | None = None
    health: dict[str, int] = field(default_factory=dict)
    consumer: str = ""
    heir_of: str = ""
    deaths: int = 0
    started: float = 0.0
    due: float | None = 0.0
    leaving: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether every room of the process has said so."""
        return set(self.rooms) <= set(self.health)

    @property
    def title(self) -> str:
        """The process for people: its room, or `workers`."""
        return self.name if len(self.rooms) == 1 else "workers"

    def shape(self) -> dict[str, Any]:
        """As connection.json and the control socket show it."""
        state = "draining" if self.leaving else "ready" if self.is_ready else "starting"
        return {
            "rooms": list(self.rooms),
            "pid": self.known.pid if self.known else 0,
            "health_port": next(iter(self.health.values()), 0),
            "consumer": self.consumer,
            "state": state,
        }


def make_process(rooms: tuple[str, ...], logs: Path, fleet: Sequence[RoomProcess]) -> RoomProcess:
    """A process to be started beside the others, under a name of its own: `rules`, then `rules-2`."""
    base = rooms[0] if len(rooms) == 1 else f"workers-{rooms[0]}"
    taken = {process.name for process in fleet}
    names = (base if number == 1 else f"{base}-{number}" for number in count(1))
    name = next(name for name in names if name not in taken)
    beside = any(process.rooms[0] == rooms[0] for process in fleet)
    return RoomProcess(rooms, name, logs / f"{name}.log", beside)


def too_many(fleet: Sequence[RoomProcess], room: str, wanted: int) -> list[RoomProcess]:
    """Which processes have to go for `wanted` processes of the room: the newest that serve nothing else.
    ScaleError when there are not enough of those, or the room does not scale."""
    if room in LISTENING:
        raise ScaleError(
            f"{room} listens on one port of this machine: `headrace start {room}` starts another beside it"
        )
    if wanted < 1:
        raise ScaleError(f"{room} needs a process: 1 is the least")
    if wanted > MOST_PROCESSES:
        raise ScaleError(
            f"{room} can have {MOST_PROCESSES} processes on one machine: `headrace start {room}` on another"
        )
    serving = serves(fleet, room)
    alone = [process for process in serving if process.rooms == (room,)]
    shared = len(serving) - len(alone)
    surplus = max(0, len(serving) - wanted)
    if surplus > len(alone):
        raise ScaleError(f"{room} cannot go below {shared}: so many of its processes serve other rooms too")
    return alone[len(alone) - surplus :]


def serves(fleet: Sequence[RoomProcess], room: str) -> list[RoomProcess]:
    """Those that serve the room and stay."""
    return [process for process in fleet if room in process.rooms and not process.leaving]
