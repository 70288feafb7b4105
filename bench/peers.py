"""Who is measured: the engine alone (`direct`), Headrace, and any gateway that is already running (`--beside`)."""

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

from bench.machine import ROOT
from bench.processes import listening, merge_shared

#: Process names that start so are model servers: alive in the list, left out of the figures.
ENGINE_NAMES = ("engine", "model")


class StartError(Exception):
    """Something that is to be measured did not come up; the text says what and where its log is."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One OpenAI-compatible door; `groups` are its processes by name, for CPU and memory. keys: used in turn instead of
    `key` when there are any."""

    name: str
    url: str
    model: str = "mock"
    key: str = ""
    headers: tuple[str, ...] = ()
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


def beside(text: str) -> Peer:
    """A peer from `NAME=URL[;key=K][;model=M][;header=N: V][;pids=1+2]`; ValueError when it is unclear. Without pids it
    is the processes that listen there."""
    name, found, rest = text.partition("=")
    url, *options = rest.split(";")
    if not found or not name or not url.startswith("http://"):
        raise ValueError(f"--beside {text!r}: write NAME=http://HOST:PORT/v1, options after semicolons")
    pairs = [option.partition("=")[::2] for option in options]
    unknown = sorted({key for key, _ in pairs} - {"key", "model", "header", "pids"})
    if unknown:
        raise ValueError(f"--beside {name}: unknown option {', '.join(unknown)}; known are key, model, header, pids")
    last = dict(pairs)
    headers = tuple(value for key, value in pairs if key == "header")
    groups = _pids(last["pids"]) if "pids" in last else _listeners(url)
    return Peer(name, base_url(url), last.get("model", "mock"), last.get("key", ""), headers, groups)


def _listeners(url: str) -> dict[str, tuple[int, ...]]:
    found = listening(urlsplit(url).port or 80)
    return {"all processes": found} if found else {}


def _pids(text: str) -> dict[str, tuple[int, ...]]:
    """Groups from `1+2` (all one group) or `web:1+redis:2`."""
    groups: dict[str, list[int]] = {}
    for part in filter(None, text.split("+")):
        name, _, pid = part.rpartition(":")
        groups.setdefault(name or "all processes", []).append(int(pid))
    return {name: tuple(pids) for name, pids in groups.items()}


def base_url(url: str) -> str:
    """A base URL that ends in /v1."""
    return url.rstrip("/") if url.rstrip("/").endswith("/v1") else url.rstrip("/") + "/v1"


class Program:
    """A process of ours: its own session, its output in a log file, ended with all that it started. Servers that the
    environment names are not for measurements. at: the folder it runs in, this checkout for parts of the benchmark.

    A measured program must find its own code and no other, so nothing points it here."""

    def __init__(self, command: Sequence[str], log: Path, cores: frozenset[int] | None, at: Path = ROOT) -> None:
        unwanted = ("REDIS_URL", "DATABASE_URL", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=at, env=environment,
            )  # fmt: skip
        self.log = log
        if cores:
            os.sched_setaffinity(self.process.pid, cores)

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, grace: float, others: Sequence[int] = ()) -> None:
        """SIGTERM (a background job may ignore SIGINT); after `grace` seconds SIGKILL to it and to `others`."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            for pid in (self.pid, *others):
                _kill(pid)
            self.process.wait(5)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:].strip()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Headrace:
    """One embedded Headrace on a fresh data folder: started, measured, stopped."""

    def __init__(
        self,
        name: str,
        program: Path,
        data: Path,
        port: int,
        engine_url: str,
        more: Sequence[str],
        cores: frozenset[int] | None,
    ) -> None:
        self._name = name
        if not program.exists():
            raise StartError(f"{program} is missing; run scripts/install")
        data.mkdir(parents=True, exist_ok=True)
        self._connection = data / "connection.json"
        command = [
            str(program.absolute()),
            "up",
            "--data",
            str(data),
            "--port",
            str(port),
            "--engine",
            f"mock={engine_url}",
            *more,
        ]
        self._began = monotonic()
        self._program = Program(command, data.parent / f"{data.name}.log", cores, data)
        self._groups: dict[str, tuple[int, ...]] = {}

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """Its supervisor."""
        return self._program.process

    def ready(self, limit: float) -> tuple[Peer, float, float]:
        """The peer, seconds until it said it was ready, seconds until its first good answer."""
        found = self._wait_for_connection(limit)
        said = monotonic() - self._began
        pids: dict[str, Any] = {str(name): value for name, value in found.get("pids", {}).items() if value}
        for row in found.get("processes", []):  # further processes of a room
            if row["pid"] and row["pid"] not in pids.values():
                pids[f"{'+'.join(row['rooms'])} {row['pid']}"] = row["pid"]
        if self._program.pid not in pids.values():
            pids["supervisor"] = self._program.pid
        self._groups = merge_shared(pids)
        model = (found.get("models") or ["mock"])[0]
        name = model if isinstance(model, str) else str(model.get("id", "mock"))
        peer = Peer(self._name, base_url(found["base_url"]), name, found["api_key"], (), self._groups)
        wait_for_answer(peer, limit)
        return peer, said, monotonic() - self._began

    def stop(self) -> None:
        """Drain and stop; what is left after 40 s is killed."""
        self._program.stop(40, [pid for pids in self._groups.values() for pid in pids])

    def _wait_for_connection(self, limit: float) -> dict[str, Any]:
        while monotonic() - self._began < limit:
            if self._program.process.poll() is not None:
                raise StartError(f"headrace up ended with code {self._program.process.returncode}:\n{self._words()}")
            try:
                found: dict[str, Any] = json.loads(self._connection.read_text())
                return found
            except (FileNotFoundError, ValueError):
                sleep(0.02)
        raise StartError(f"headrace was not ready within {limit:.0f} s:\n{self._words()}")

    def _words(self) -> str:
        return self._program.last_words() or f"(nothing in {self._program.log})"


def wait_for_answer(peer: Peer, limit: float) -> None:
    """Ask until the peer gives a good answer; StartError with the last bad one otherwise."""
    end, last = monotonic() + limit, "no connection"
    while monotonic() < end:
        try:
            status, body = ask(peer)
        except OSError as error:
            last = str(error)
        else:
            if status == 200:
                return
            last = f"{status} {body[:300]!r}"
        sleep(0.05)
    raise StartError(f"{peer.name} gave no answer at {peer.url} within {limit:.0f} s; the last was: {last}")


def ask(peer: Peer) -> tuple[int, bytes]:
    """Status and body of one short request; OSError when there is nobody."""
    message = {"role": "user", "content": "Are you there?"}
    body = json.dumps({"model": peer.model, "max_tokens": 2, "messages": [message]})
    headers = {"content-type": "application/json"}
    if peer.key:
        headers["authorization"] = f"Bearer {peer.key}"
    headers.update((name, value.strip()) for name, _, value in (header.partition(":") for header in peer.headers))
    return _http("POST", f"{peer.url}/chat/completions", body, headers)


def fetch(url: str) -> Any:
    """The JSON behind a URL; OSError when there is nobody, ValueError when the status is bad."""
    return json.loads(http_get(url))


def http_get(url: str) -> str:
    """The text behind a URL; errors as of `fetch`."""
    status, body = _http("GET", url, None, {})
    if status != 200:
        raise ValueError(f"{url} answered {status}: {body[:300]!r}")
    return body.decode()


def _http(method: str, url: str, body: str | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=10)
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{url}: {error!r}") from error
    finally:
        connection.close()
