"""Restarts a process of a running Headrace: one joins, has its share of the work, and is stopped (bench/rolling.py)."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from bench import rolling
from runtime.lifecycle import STOP
from tests.e2e.house import Engine, House, Joined, another_process


class Leaving:
    """A joined process that is asked to end. Implements rolling.Victim."""

    def __init__(self, joined: Joined) -> None:
        self._process, self._log = joined.process, joined.log
        self._port = next(int(line["health_port"]) for line in self._lines() if line.get("event") == "ready")

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, seconds: float) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self._process.pid} did not end within {seconds} s") from None

    def ready(self) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def steps(self) -> list[str]:
        said = [str(line.get("event")) for line in self._lines()]
        return [words.removeprefix(STOP) for words in said if words.startswith(STOP)]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]


async def restart(house: House, engine: Engine, kinds: Sequence[str], size: rolling.Size, model: str) -> rolling.Row:
    """A process of these rooms joins, holds its share of the streams, and is stopped."""
    with another_process(house, kinds) as joined:
        url = f"{house.base_url}/v1"
        held_url = _door_of(joined) if "ingress" in kinds else url
        doors = rolling.Doors(held_url, url, model, house.key, lambda: engine.stats()["live"])
        return await rolling.run(", ".join(kinds), doors, Leaving(joined), size)


def _door_of(joined: Joined) -> str:
    """The base URL of a joined ingress."""
    found = re.search(r"ingress at (\S+?)[;,)]", joined.log.read_text())
    assert found is not None, joined.log.read_text()
    return f"{found[1]}/v1"
