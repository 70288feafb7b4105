"""One cell of one peer: set the engine, run the load, read /proc as the window opens and closes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from bench import processes
from bench.cells import Cell, load_arguments
from bench.machine import ROOT
from bench.peers import ENGINE_NAMES, Peer, Program, StartError, fetch

#: Seconds after which a load that neither ends nor speaks is killed, beyond its own times.
PATIENCE = 120.0


class MockEngine:
    """The scripted engine as a process of its own."""

    def __init__(self, log: Path, cores: frozenset[int] | None, port: int = 0) -> None:
        command = [sys.executable, "-m", "bench.mock_engine", "--port", str(port)]
        self.program = Program(command, log, cores)
        self.root = self._wait()
        self.url = f"{self.root}/v1"

    def set(self, settings: Mapping[str, float]) -> None:
        """Change the pace of the answers that begin from now on."""
        fetch(f"{self.root}/_mock/set?" + "&".join(f"{name}={value}" for name, value in settings.items()))

    def settled(self, limit: float = 10.0) -> dict[str, int]:
        """The counters once no answer is under way, or after `limit` seconds with `live` above 0."""
        end = monotonic() + limit
        while True:
            stats: dict[str, int] = fetch(f"{self.root}/_mock/stats")
            if not stats["live"] or monotonic() > end:
                return stats
            sleep(0.02)

    def _wait(self) -> str:
        end = monotonic() + 20
        while monotonic() < end and self.program.process.poll() is None:
            for line in self.program.log.read_text().splitlines():
                if line.startswith("mock engine on "):
                    return line.removeprefix("mock engine on ").removesuffix("/v1")
            sleep(0.02)
        raise StartError(f"the mock engine did not start:\n{self.program.last_words()}")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds at one moment: of each group of each peer, of the mock engine, of the whole machine."""

    peers: Mapping[str, Mapping[str, float]]
    mock: float
    busy: float


class Bench:
    """The engine and the peers of one run."""

    def __init__(self, mock: MockEngine, peers: Sequence[Peer], harness_cores: frozenset[int] | None) -> None:
        self._mock, self._peers, self._cores = mock, peers, harness_cores

    def measure(self, cell: Cell, peer: Peer) -> dict[str, Any]:
        """The load's own figures, with `cpu_s` and `memory` by group, the CPU of the harness and of others, and what
        the engine saw of it: requests (retries show), aborted answers, answers left over (`live`).
        """
        self._mock.set(cell.engine)
        seen = self._mock.settled()
        load = self._start(cell, peer)
        watchdog = threading.Timer(float(cell.load["duration"]) + PATIENCE, load.kill)
        watchdog.start()
        try:
            before, after, result, memory = self._follow(load, peer)
        finally:
            watchdog.cancel()
            load.wait()
        result |= _differences(before, after, peer.name, result["load_cpu_s"])
        result["memory"] = memory
        now = self._mock.settled()
        result["engine"] = {name: now[name] - seen[name] for name in ("requests", "aborted")} | {"live": now["live"]}
        return {"peer": peer.name, "cell": cell.name, **result}

    def _start(self, cell: Cell, peer: Peer) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "bench.load", "--events", "--url", peer.url, "--model", peer.model]
        command += load_arguments(cell)
        command += ["--key", peer.key] if peer.key and not peer.keys else []
        command += ["--keys-from-stdin"] if peer.keys else []
        for header in peer.headers:
            command += ["--header", header]
        load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert load.stdin
        with load.stdin:
            load.stdin.writelines(f"{key}\n" for key in peer.keys)
        if self._cores:
            os.sched_setaffinity(load.pid, self._cores)
        return load

    def _follow(self, load: "subprocess.Popen[str]", peer: Peer) -> tuple[Reading, Reading, dict[str, Any], Any]:
        assert load.stdout
        _expect(load.stdout.readline(), "begin")
        before = self._read()
        _expect(load.stdout.readline(), "end")
        after = self._read()
        memory = memory_of(peer.groups)
        result: dict[str, Any] = json.loads(load.stdout.readline())
        return before, after, result, memory

    def _read(self) -> Reading:
        groups = {f"{peer.name} {name}": pids for peer in self._peers for name, pids in peer.groups.items()}
        seconds = processes.cpu_seconds({**groups, "mock": [self._mock.program.pid]})
        peers = {
            peer.name: {name: seconds[f"{peer.name} {name}"] for name in peer.groups if _counts(name)}
            for peer in self._peers
        }
        return Reading(peers, seconds["mock"], processes.machine_busy_seconds())


def memory_of(groups: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    """rss, pss (MB) and processes of each of a peer's groups now."""
    return {name: asdict(used) for name, used in processes.memory(groups).items() if _counts(name)}


def _counts(group: str) -> bool:
    """Whether a group is the gateway's: a model server of its own is not."""
    return not group.startswith(ENGINE_NAMES)


def _expect(line: str, wanted: str) -> None:
    if line.strip() != wanted:
        raise StartError(f"the load generator ended before its window said {wanted!r}; it wrote {line.strip()!r}")


def _differences(before: Reading, after: Reading, peer: str, load: float) -> dict[str, Any]:
    """CPU seconds inside the window; `others_cpu_s` is what neither the harness nor any peer used."""
    spent = {
        name: {group: seconds - before.peers[name][group] for group, seconds in groups.items()}
        for name, groups in after.peers.items()
    }
    mock = after.mock - before.mock
    known = sum(sum(groups.values()) for groups in spent.values()) + mock + load
    return {
        "cpu_s": spent[peer],
        "mock_cpu_s": round(mock, 3),
        "others_cpu_s": round(max(0.0, after.busy - before.busy - known), 3),
    }
