"""A primary, a replica that can be made to lag, and a Sentinel that promotes it, on loopback, for tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from base.ports import free_port
from console.embedded import processes
from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from tests.servers import TEST_PASSWORD, redis_program

MASTER = "house"
_DOWN_MS = 500  # without an answer for so long the Sentinel gives a primary up
_WAIT_S = 30.0


class Server(EmbeddedValkey):
    """One server of the pair. lines: of its configuration; program: another than the embedded one."""

    def __init__(self, folder: Path, *lines: str, program: Path | None = None) -> None:
        super().__init__(folder, ValkeySettings(TEST_PASSWORD, tied=True))
        self._lines, self._other = lines, program

    def _program(self) -> Path:
        return self._other or super()._program()

    def _config(self, port: int) -> str:
        return super()._config(port) + "\n".join(
            [f"masterauth {TEST_PASSWORD}", "repl-diskless-sync-delay 0", *self._lines, ""]
        )

    def says(self, section: str, words: str) -> bool:
        """Whether its INFO has these words."""
        return words.encode() in self.ask("INFO", section)

    def die(self) -> None:
        """As by a lost machine: nothing is written any more."""
        processes.send(self.identity, 9)
        until(lambda: not self.is_alive())


class Sentinel(Server):
    """The one who decides. Its password is that of the servers."""

    name = "sentinel"

    def _program(self) -> Path:
        """The server's program under the name by which it knows what it is to be."""
        link = self.folder / "redis-sentinel"
        link.unlink(missing_ok=True)
        link.symlink_to(super()._program())
        return link

    def _config(self, port: int) -> str:
        (watched,) = self._lines
        said = [
            *("bind 127.0.0.1", f"port {port}", f'dir "{self.folder}"', f'pidfile "{self.folder}/valkey.pid"'),
            *(f"requirepass {TEST_PASSWORD}", f"sentinel sentinel-pass {TEST_PASSWORD}"),
            f"sentinel monitor {MASTER} 127.0.0.1 {watched} 1",
            f"sentinel auth-pass {MASTER} {TEST_PASSWORD}",
            f"sentinel down-after-milliseconds {MASTER} {_DOWN_MS}",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        return "\n".join(said) + "\n"


class Guarded:
    """The three together."""

    def __init__(self, folder: Path, program: Path | None) -> None:
        self._folder, self._program = folder, program
        self.primary = Server(folder / "a", program=program)
        self.replica = Server(folder / "b", program=program)
        self.sentinel = Sentinel(folder / "s", program=program)

    @property
    def url(self) -> str:
        """The address as an operator would write it; the first Sentinel named is nobody."""
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{self.sentinel.port}"
        return f"redis+sentinel://:{TEST_PASSWORD}@{hosts}/{MASTER}/0?sentinel_password={TEST_PASSWORD}"

    def start(self) -> None:
        """Until the replica follows and the Sentinel knows of it."""
        self.primary.start()
        self.replica = Server(self._folder / "b", f"replicaof 127.0.0.1 {self.primary.port}", program=self._program)
        self.replica.start()
        until(lambda: self.replica.says("replication", "master_link_status:up"))
        self.sentinel = Sentinel(self._folder / "s", str(self.primary.port), program=self._program)
        self.sentinel.start()
        until(lambda: b"slaves=1" in self.sentinel.ask("INFO", "sentinel"))

    def stop(self) -> None:
        """At once: nothing of theirs is kept."""
        for server in (self.sentinel, self.replica, self.primary):
            if server.is_alive():
                server.die()

    def lag(self) -> None:
        """From now on the replica gets nothing: its link is cut, and it is not let in again. Sentinel promotes only a
        replica that was not cut off for long, so the primary must die within seconds."""
        self.replica.ask("CONFIG", "SET", "masterauth", "wrong")
        self.primary.ask("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: self.replica.says("replication", "master_link_status:down"))

    def fail_over(self) -> float:
        """Kill the primary; seconds until the replica is the master."""
        began = time.monotonic()
        self.primary.die()
        until(lambda: self.replica.says("replication", "role:master"))
        took = time.monotonic() - began
        until(lambda: b"address=127.0.0.1:%d" % self.replica.port in self.sentinel.ask("INFO", "sentinel"))
        return took

    def come_back(self) -> None:
        """The old primary starts again and is made a replica of the new one."""
        self.primary.start()
        until(lambda: self.primary.says("replication", "role:slave"))


@contextmanager
def guarded(folder: Path, kind: str = "valkey") -> Iterator[Guarded]:
    """Running, until the block ends. kind: valkey | redis."""
    made = Guarded(folder, redis_program() if kind == "redis" else None)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def until(what: object, seconds: float = _WAIT_S) -> None:
    """Poll a function until it is true; AssertionError at the deadline."""
    assert callable(what)
    assert processes.wait_until(lambda: bool(what()), seconds), "it did not come to pass"
