"""What the processes of a Headrace and its server hold, seen from outside. Linux."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import redis

from bench import processes
from bench.peers import ENGINE_NAMES, http_get
from tests.e2e.house import House

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TASKS = "headrace_tasks "


@dataclass(frozen=True, slots=True)
class Held:
    """By one process: open file descriptors, sockets among them, tasks of its loop (-1: it has none to tell of)."""

    files: int
    sockets: int
    tasks: int


@dataclass(frozen=True, slots=True)
class State:
    """At one moment. memory: bytes the server uses; clients: connections it has; keys: by family of names."""

    held: Mapping[str, Held]
    memory: int
    clients: int
    keys: Mapping[str, int]


class Watch:
    """One running Headrace. series: (seconds, MB) of each process so far, from `watch`."""

    def __init__(self, house: House, every_s: float) -> None:
        self._house, self._every_s = house, every_s
        self.series: dict[str, list[tuple[float, float]]] = {}
        self._pids = _pids(house)

    async def watch(self) -> None:
        """Read memory until cancelled; before each reading it waits."""
        while True:
            await asyncio.sleep(self._every_s)
            now = monotonic()
            for name, found in self.memory().items():
                self.series.setdefault(name, []).append((now, found))

    def memory(self) -> dict[str, float]:
        """MB of each process: resident of its own; of PostgreSQL what it and its backends have beside the shared
        buffers, which are of fixed size and fill as the record does."""
        own = {name: _resident(pid) for name, pid in self._pids.items() if name != "postgres"}
        backends = processes.members({"postgres": [self._pids["postgres"]]}, processes.table())["postgres"]
        return own | {"postgres": sum(_private(pid) for pid in backends)}

    def state(self) -> State:
        """Everything but memory of processes."""
        ports: Mapping[str, int] = self._house.connection["health_ports"]
        held = {name: _held(pid, _tasks(name, ports)) for name, pid in self._pids.items()}
        with redis.Redis.from_url(self._house.valkey_url) as client:
            told: Any = client.info()
            keys = Counter(_family(key) for key in client.scan_iter(count=1000))
        return State(held, told["used_memory"], told["connected_clients"], keys)

    def new_processes(self) -> list[str]:
        """Processes that are not those of the beginning: something died."""
        return [name for name, pid in _pids(self._house).items() if self._pids.get(name) != pid]

    def live(self) -> int:
        """Runs that have not ended."""
        with redis.Redis.from_url(self._house.valkey_url) as client:
            return sum(int(client.zcard(key)) for key in client.scan_iter(match="*:live", count=1000))


def _pids(house: House) -> dict[str, int]:
    """Processes by the rooms in them; engines are not ours."""
    named = {name: pid for name, pid in house.connection["pids"].items() if pid and not name.startswith(ENGINE_NAMES)}
    return {name: pids[0] for name, pids in processes.merge_shared(named).items()}


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


def _private(pid: int) -> float:
    """0 for a backend that has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:"))


def _held(pid: int, tasks: int) -> Held:
    kinds = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            kinds.append(os.readlink(entry.path))
        except FileNotFoundError:  # the listing's own, or closed since
            continue
    return Held(len(kinds), sum(kind.startswith("socket:") for kind in kinds), tasks)


def _tasks(name: str, ports: Mapping[str, int]) -> int:
    port = next((ports[room] for room in name.split("+") if room in ports), 0)
    if not port:
        return -1
    lines = http_get(f"http://127.0.0.1:{port}/metrics").splitlines()
    return next((int(float(line.removeprefix(_TASKS))) for line in lines if line.startswith(_TASKS)), -1)


def _family(key: bytes) -> str:
    """A key's name without what names a run, a tenant or a pool: its tag and its first word."""
    tag, _, rest = key.decode("utf-8", "replace").partition("}")
    return f"{tag[:2]}..}}{':'.join(rest.split(':')[:2])}" if rest else tag.partition(":")[0]
