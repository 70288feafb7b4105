"""A whole Headrace as a user starts it, for tests: `headrace up` in a process of its own, and scripted engines.

Everything is reached through what users have: HTTP, the connection file, the command line, signals.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from base.ports import free_port
from console.embedded.processes import die_with_parent
from schemas.routes import CHAT

ROOT = Path(__file__).resolve().parents[2]
_START_S = 90.0  # on a busy machine
_numbers = itertools.count(1)


def until(what: Callable[[], Any], seconds: float = 60.0, pause: float = 0.05) -> Any:
    """The first true value of `what()`, asked again and again; AssertionError when it stays false."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)


class Engine:
    """A scripted engine (bench/mock_engine.py); faults are asked for in the prompt."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port, self.process = port, process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> Mapping[str, int]:
        """Requests, streams begun, finished, aborted, tokens."""
        found: Mapping[str, int] = self._get("/_mock/stats")
        return found

    def set(self, **settings: float) -> None:
        """ttft_ms, itl_ms, tokens, err (a status for all) for the requests that follow."""
        self._get("/_mock/set?" + "&".join(f"{name}={value}" for name, value in settings.items()))

    def ledger(self, name: str) -> Any:
        """What was sent for the requests that said `@@id=<name>`, attempt by attempt."""
        return self._get(f"/_mock/ledger?id={name}")

    def whole_ledger(self) -> Any:
        """The same of every named request, by name."""
        return self._get("/_mock/ledger")

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as reply:
            return json.loads(reply.read())


@contextmanager
def scripted_engine(*arguments: str) -> Iterator[Engine]:
    """An engine of its own on a free port."""
    port = free_port()
    words = [sys.executable, "-m", "bench.mock_engine", "--port", str(port), *arguments]
    process = subprocess.Popen(words, cwd=ROOT, preexec_fn=die_with_parent)
    engine = Engine(port, process)
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/health"))
        yield engine
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


class House:
    """A running Headrace."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.process = folder, process

    @property
    def connection(self) -> dict[str, Any]:
        """connection.json as it is now."""
        found: dict[str, Any] = json.loads((self.folder / "connection.json").read_text())
        return found

    @property
    def base_url(self) -> str:
        return str(self.connection["base_url"])

    @property
    def key(self) -> str:
        return str(self.connection["api_key"])

    def pid(self, room: str) -> int:
        """The process a room or server runs in now."""
        return int(self.connection["pids"][room])

    def kill(self, room: str, number: int = signal.SIGKILL) -> int:
        """Signal a room's process; its pid."""
        pid = self.pid(room)
        os.kill(pid, number)
        return pid

    def restarted(self, room: str, old: int) -> None:
        """Wait until the supervisor has put another process in its place."""

        def other() -> bool:
            try:
                return self.pid(room) != old and room in self.connection["health_ports"]
            except (OSError, KeyError, ValueError):
                return False

        until(other)

    def request(
        self, path: str, body: Any = None, *, key: str | None = None, method: str = "", timeout: float = 60
    ) -> tuple[int, Any]:
        """(status, JSON) of a call to the API, or to the admin API for paths under /admin."""
        admin = path.startswith("/admin")
        connection = self.connection
        base = connection["admin_url"] if admin else connection["base_url"]
        secret = key if key is not None else connection["admin_key" if admin else "api_key"]
        data = None if body is None else json.dumps(body).encode()
        call = urllib.request.Request(str(base) + path, data=data, method=method or ("GET" if data is None else "POST"))
        call.add_header("authorization", f"Bearer {secret}")
        call.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(call, timeout=timeout) as reply:
                return reply.status, json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def new_key(self, **wish: Any) -> dict[str, Any]:
        """A key made through the admin API, with its `token` and `key_id`."""
        status, made = self.request("/admin/v1/keys", {"name": "made by a test", **wish})
        assert status == 201, made
        return dict(made)

    def record(self, run: str) -> dict[str, Any]:
        """The row of an ended run, waited for."""

        def row() -> Any:
            status, found = self.request(f"/admin/v1/requests/{run}")
            return found if status == 200 else None

        found: dict[str, Any] = until(row)
        return found

    def post(
        self,
        body: Any,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
        base_url: str = "",
        path: str = CHAT,
    ) -> http.client.HTTPConnection:
        """Send a request, a chat by default (bytes as they are), on a connection of its own; the answer is not
        awaited."""
        host = (base_url or self.base_url).partition("://")[2]
        connection = http.client.HTTPConnection(host, timeout=60)
        send(connection, body, key or self.key, headers, path)
        return connection

    @property
    def valkey_url(self) -> str:
        """Address of its Valkey, with the password."""
        return f"redis://:{self._secret('valkey_password')}@127.0.0.1:{self._server_port('valkey')}/0"

    @property
    def postgres_dsn(self) -> str:
        """Address of its PostgreSQL as the superuser."""
        secret, port = self._secret("postgres_password"), self._server_port("postgres")
        return f"postgresql://headrace:{secret}@127.0.0.1:{port}/headrace"

    def overrides(self) -> dict[str, Any]:
        """The settings of another process of this house: the same servers, data and key ring."""
        return {
            "redis.url": self.valkey_url,
            "postgres.dsn": self.postgres_dsn,
            "data.directory": str(self.folder),
            "secrets.keyring": self._secret("keyring"),
        }

    def _secret(self, name: str) -> str:
        return str(json.loads((self.folder / "secrets.json").read_text())[name])

    def _server_port(self, name: str) -> int:
        return int(json.loads((self.folder / name / "server.json").read_text())["port"])

    def logs(self) -> str:
        """Everything its processes have written."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("logs/*.log")))

    def stop(self) -> int:
        """Ctrl-C, as a user; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def send(
    connection: http.client.HTTPConnection,
    body: Any,
    key: str,
    headers: Mapping[str, str] | None = None,
    path: str = CHAT,
) -> None:
    """One request on an open connection."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
    connection.request("POST", path, payload, lines)


def read_event(response: http.client.HTTPResponse) -> bytes:
    """The next event of a stream with its blank line, as soon as it is there; b"" at the end."""
    lines: list[bytes] = []
    while line := response.readline():
        lines.append(line)
        if not line.strip():
            break
    return b"".join(lines)


class Joined:
    """A process that `headrace start` made, and what it said."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def consumer(self) -> str:
        """Its name in every group."""
        found = re.search(r"^Ready: (\S+)", self.log.read_text(), re.MULTILINE)
        assert found is not None, self.log.read_text()
        return found[1]


@contextmanager
def another_process(house: House, rooms: Sequence[str], *arguments: str) -> Iterator[Joined]:
    """`headrace start` of these rooms beside a running house, ready when the block begins."""
    words = [sys.executable, "-m", "console.cli.main", "start", *rooms, "--data", str(house.folder), *arguments]
    log = house.folder / "logs" / f"start-{next(_numbers)}.log"
    with open(log, "wb") as target:
        process = subprocess.Popen(words, cwd=ROOT, stderr=target, env=_environment(), preexec_fn=die_with_parent)
    joined = Joined(process, log)

    def ready() -> bool:
        assert process.poll() is None, "start ended:\n" + log.read_text()
        return "Ready: " in log.read_text()

    try:
        until(ready, _START_S)
        yield joined
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`headrace ...` about a running house."""
    words = [sys.executable, "-m", "console.cli.main", *arguments, "--data", str(house.folder)]
    return subprocess.run(words, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=90)


def _environment() -> dict[str, str]:
    """Ours without settings of a Headrace."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE")}


@contextmanager
def headrace(
    folder: Path,
    *arguments: str,
    settings: str = "",
    engines: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    environment: Mapping[str, str] | None = None,
    rooms: Sequence[str] = (),
) -> Iterator[House]:
    """`headrace up --data folder` until the block ends. settings: text of a headrace.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "console.cli.main", "up", "--data", str(folder), "--port", str(free_port())]
    named = engines.items() if isinstance(engines, Mapping) else engines or ()
    for name, url in named:
        words += ["--engine", f"{name}={url}"]
    if settings:
        (folder / "headrace.yaml").write_text(settings)
        words += ["--config", str(folder / "headrace.yaml")]
    log = open(folder / "up.log", "ab")  # noqa: SIM115 - closed when the house has stopped
    process = subprocess.Popen(
        [*words, *arguments],
        cwd=ROOT,
        stdout=log,
        stderr=log,
        env={**_environment(), **(environment or {})},
        preexec_fn=die_with_parent,  # a test run that is killed leaves nothing behind
    )
    house = House(folder, process)
    try:
        until(lambda: (folder / "connection.json").exists() or _ended(process, folder), _START_S)
        yield house
    finally:
        if process.poll() is None:
            house.stop()
        log.close()


def _ended(process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, "up ended:\n" + (folder / "up.log").read_text()
    return False
