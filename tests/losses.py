"""Houses whose server loses its last writes on demand: by a cut of its append-only file, by a failover."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from console.embedded.postgres import EmbeddedPostgres, PostgresSettings
from tests.e2e.house import Engine, House, headrace, until
from tests.guarded import Guarded, guarded
from tests.own_servers import TOKEN, environment_of
from tests.own_servers import headrace as command
from tests.servers import TEST_PASSWORD

WINDOW_S = 1.0  # what `appendfsync everysec` may lose


class Sizes:
    """How long the append-only file was, moment by moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def file(self) -> Path:
        """The part of it that is written to now."""
        return max(self._folder.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._seen.append((time.monotonic(), self.file().stat().st_size))

    def before(self, seconds: float) -> int:
        """Its length that long ago."""
        then = time.monotonic() - seconds
        return max(size for at, size in self._seen if at <= then)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class LosingHouse:
    """A Headrace with its embedded servers. lost: bytes that the last blow cut off."""

    house: House
    sizes: Sizes
    lost: int = 0

    @property
    def key(self) -> str:
        return self.house.key

    async def blow(self) -> float:
        return await asyncio.to_thread(self.cut)

    def cut(self) -> float:
        """Kill Valkey, take the last second off its file, let the supervisor start it again; seconds until it answers.

        The supervisor stands still meanwhile, or it would start the server before the file is cut. Where the cut falls
        inside a command, or inside the writes of a script, the server drops what is left of them."""
        supervisor, old, began = self.house.process.pid, self.house.pid("valkey"), time.monotonic()
        os.kill(supervisor, signal.SIGSTOP)
        try:
            at = self.sizes.before(WINDOW_S)
            os.kill(old, signal.SIGKILL)
            until(lambda: _state(old) in ("", "Z"), pause=0.005)
            file = self.sizes.file()
            self.lost = file.stat().st_size - at
            os.truncate(file, at)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        until(lambda: self.house.pid("valkey") != old)
        return time.monotonic() - began


def _state(pid: int) -> str:
    """The letter of /proc/<pid>/stat; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@contextmanager
def losing_house(folder: Path, engine: Engine) -> Iterator[LosingHouse]:
    """Running, with the model `mock`."""
    with headrace(folder, "--no-model", engines={"mock": engine.url}) as house:
        sizes = Sizes(folder / "valkey/appendonlydir")
        try:
            yield LosingHouse(house, sizes)
        finally:
            sizes.close()


@dataclass
class ReplicatedHouse:
    """A Headrace on a primary with a replica, found through Sentinel."""

    house: House
    key: str
    servers: Guarded
    lag_s: float = 1.0

    async def blow(self) -> float:
        """Cut the replica off, let it lag, kill the primary; seconds from there until the replica is in charge."""
        await asyncio.to_thread(self.servers.lag)
        await asyncio.sleep(self.lag_s)
        return await asyncio.to_thread(self.servers.fail_over)


@contextmanager
def replicated_house(folder: Path, engine: Engine, kind: str = "valkey") -> Iterator[ReplicatedHouse]:
    """Running, with the model `mock` and an application key."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = stack.enter_context(guarded(folder, kind))
        postgres = EmbeddedPostgres(folder / "pg", PostgresSettings(TEST_PASSWORD, durable=False, tied=True))
        stack.callback(postgres.stop)
        postgres.start()
        login = f"postgresql://gate-service:own-pass@127.0.0.1:{postgres.port}/gate"
        environment = {**environment_of(servers.url, login), "INTERNAL_API_KEY": TOKEN}
        made = command("init", environment=environment, folder=folder)
        assert made.code == 0, made.err
        key = re.search(r"first application key\n +(hr_\w+)", made.out)
        assert key is not None, made.out
        engines = {"mock": engine.url}
        house = stack.enter_context(headrace(folder / "data", "--no-model", engines=engines, environment=environment))
        yield ReplicatedHouse(house, key[1], servers)
