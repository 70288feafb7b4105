"""Kills Headrace's processes while a client reads an answer, and shows what the client gets.

Starts a scripted engine (bench/mock_engine.py: 10 tokens a second) and a fresh Headrace with a process per room in a
temporary folder, then, one after the other, each time with a request of its own:

    guard      kill -9 the guard that holds the request: its successor takes it over at once, the answer comes whole
    ingress    kill -9 the process that holds the client's socket: the client reads on where it was, at its successor
    router     kill -9 the process that talks to the engine in mid-stream: an error with a code, never a clean end
    valkey     kill -9 the server under everything in mid-stream: it restarts from its file, the answer goes on

The supervisor sees a process die and tells its successor. But in the idle limit (15 s) after the server has started
nobody takes anything over, so `router` waits for that and `valkey` comes last.

Exit code 0 when every request ended with the whole answer or a coded error, 1 when one did not. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from base.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
TOKENS, BEFORE = 30, 5  # length of the answer; tokens that arrive before the kill
PATIENCE_S = 60.0
CALM_S = 15.0  # the idle limit, within which of a server's start nothing is taken over
ENDS = (OSError, http.client.HTTPException)


@dataclass(slots=True)
class Seen:
    """What a client has of one answer. events: how many SSE events, which is where it would read on."""

    run: str = ""
    events: int = 0
    tokens: int = 0
    done: bool = False
    code: str = ""
    cut: bool = False

    @property
    def ended_well(self) -> bool:
        """The whole answer, or an error with a code; one of both."""
        return (self.done and self.tokens == TOKENS) != bool(self.code)


class Demo:
    """A running Headrace and the lines it is shown by."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._begun = folder, time.monotonic()
        self._calm_at = 0.0

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:5.1f} s  {text}", flush=True)

    def ready(self) -> None:
        """Everything has started."""
        self._calm_at = time.monotonic() + CALM_S

    def wait_until_calm(self) -> None:
        """Until CALM_S after the start."""
        time.sleep(max(0.0, self._calm_at - time.monotonic()))

    def connection(self) -> dict[str, Any]:
        """connection.json; PATIENCE_S for it to come back while something restarts."""

        def read() -> Any:
            with contextlib.suppress(OSError, ValueError):
                return json.loads((self._folder / "connection.json").read_text())

        found: dict[str, Any] = until(read, "connection.json")
        return found

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the process of a room or server, and say so when it kills."""
        pid = int(self.connection()["pids"][name])
        os.kill(pid, number)
        if number == signal.SIGKILL:
            self.say(f"    kill -9 {pid}   ({name})")

    def call(self, method: str, path: str, body: Any = None, admin: bool = False) -> http.client.HTTPConnection:
        """Send a request; the answer is not awaited."""
        found = self.connection()
        line = http.client.HTTPConnection(urlsplit(found["admin_url" if admin else "base_url"]).netloc, timeout=90)
        headers = {"authorization": f"Bearer {found['admin_key' if admin else 'api_key']}"}
        line.request(method, path, None if body is None else json.dumps(body), headers)
        return line

    def ask(self) -> http.client.HTTPConnection:
        """A streamed chat request of TOKENS tokens."""
        message = {"role": "user", "content": "Count, please."}
        return self.call(
            "POST",
            "/v1/chat/completions",
            {"model": "demo", "stream": True, "max_tokens": TOKENS, "messages": [message]},
        )

    def read(self, line: http.client.HTTPConnection, seen: Seen, at: Callable[[], None] | None = None) -> Seen:
        """The answer to its end; `at` is called once, after BEFORE tokens."""
        try:
            reply = line.getresponse()
            seen.run = seen.run or reply.getheader("x-headrace-run") or ""
            if reply.status != 200:
                seen.code = json.loads(reply.read())["error"]["code"]
                return seen
            for raw in reply:
                take(seen, raw)
                if at is not None and seen.tokens >= BEFORE:
                    at()
                    at = None
        except ENDS:
            seen.cut = True
        finally:
            line.close()
        return seen

    def record(self, run: str) -> dict[str, Any]:
        """The row that the audit wrote."""

        def row() -> Any:
            with contextlib.suppress(*ENDS):
                reply = self.call("GET", f"/admin/v1/requests/{run}", admin=True).getresponse()
                return json.loads(reply.read()) if reply.status == 200 else None

        found: dict[str, Any] = until(row, f"the record of {run}")
        return found

    def report(self, seen: Seen, begun: float) -> bool:
        """Say how the request ended, for the client and on the record."""
        took = time.monotonic() - begun
        got = f"the whole answer, {TOKENS} tokens" if seen.done else f"{seen.tokens} tokens, then error {seen.code!r}"
        if not seen.ended_well:
            got = f"NOT what was promised: {seen}"
        self.say(f"    the client got {got} ({took:.1f} s after it asked)")
        row = self.record(seen.run)
        about = "estimated" if row["estimated"] else "as the engine counted"
        self.say(f"    on the record: {row['outcome']}, {row['completion_tokens']} tokens ({about})")
        return seen.ended_well


def take(seen: Seen, raw: bytes) -> None:
    """One line of an event stream."""
    text = raw.decode().strip()
    if not text.startswith("data: "):
        return
    seen.events += 1
    if text == "data: [DONE]":
        seen.done = True
        return
    said = json.loads(text[6:])
    if "error" in said:
        seen.code = said["error"]["code"]
    elif said.get("choices") and said["choices"][0]["delta"].get("content"):
        seen.tokens += 1


# --- what is killed -----------------------------------------------------------------------------------------------


def guard(demo: Demo) -> bool:
    """The guard is frozen, so that it has the request in its hands when it dies."""
    demo.say("guard: a request is handed to the guard `rules`, which dies with it")
    begun = time.monotonic()
    demo.signal("rules", signal.SIGSTOP)
    line = demo.ask()
    time.sleep(0.3)
    demo.signal("rules", signal.SIGKILL)
    return demo.report(demo.read(line, Seen()), begun)


def midstream(name: str, words: str) -> Callable[[Demo], bool]:
    def run(demo: Demo) -> bool:
        demo.say(f"{name}: {words}")
        begun = time.monotonic()
        seen = demo.read(demo.ask(), Seen(), lambda: demo.signal(name, signal.SIGKILL))
        return demo.report(seen, begun)

    return run


def router(demo: Demo) -> bool:
    """After the time in which a silent owner counts as alive."""
    demo.say(f"router: not within {CALM_S:.0f} s of the server's start, when nobody is taken for dead")
    demo.wait_until_calm()
    return midstream("router", "the process that talks to the engine dies in mid-stream")(demo)


def ingress(demo: Demo) -> bool:
    """The client's connection is cut; it reads on from the next event."""
    demo.say("ingress: the process that holds the client's connection dies in mid-stream")
    begun = time.monotonic()
    old = demo.connection()["pids"]["ingress"]
    seen = demo.read(demo.ask(), Seen(), lambda: demo.signal("ingress", signal.SIGKILL))
    demo.say(
        f"    the connection was cut after {seen.tokens} tokens; reading on: GET /v1/streams/RUN?after={seen.events}"
    )
    until(lambda: demo.connection()["pids"]["ingress"] != old, "another ingress")

    def again() -> Any:
        with contextlib.suppress(*ENDS):
            return demo.call("GET", f"/v1/streams/{seen.run}?after={seen.events}")

    return demo.report(demo.read(until(again, "another ingress"), seen), begun)


SCENES: dict[str, Callable[[Demo], bool]] = {
    "guard": guard,
    "ingress": ingress,
    "router": router,
    "valkey": midstream("valkey", "the server that carries all streams dies in mid-stream"),
}


# --- what it runs on ----------------------------------------------------------------------------------------------


def until(what: Callable[[], Any], name: str) -> Any:
    """The first true value of `what()`; SystemExit when it stays away."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"{name} did not come within {PATIENCE_S:.0f} s")


@contextlib.contextmanager
def running(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this repository until the block ends, on servers of its own whatever the environment names."""
    environment = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def play(scenes: list[str], folder: Path) -> bool:
    """Start everything, run the scenes; whether all ended well."""
    port, demo = free_port(), Demo(folder)
    engine = ["-m", "bench.mock_engine", "--port", str(port), "--ttft-ms", "50", "--itl-ms", "100"]
    up = ["-m", "console.cli.main", "up", "--data", str(folder), "--port", str(free_port())]
    up += ["--processes", "split", "--engine", f"demo=http://127.0.0.1:{port}/v1"]
    with running(engine, folder / "engine.log"), running(up, folder / "up.log") as house:
        demo.say("starting Headrace with a process per room, and a scripted engine")
        until(lambda: (folder / "connection.json").exists() or house.poll() is not None, "Headrace")
        if house.poll() is not None:
            raise SystemExit("Headrace did not start:\n" + (folder / "up.log").read_text())
        demo.ready()
        results = [SCENES[scene](demo) for scene in scenes]
        demo.say("stopping")
    return all(results)


def main() -> int:
    words = "Kill Headrace's processes while a client reads an answer."
    parser = argparse.ArgumentParser(prog="scripts/kill-demo", description=words)
    parser.add_argument("--only", action="append", choices=list(SCENES), help="one scene; may be repeated")
    scenes = parser.parse_args().only or list(SCENES)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # whoever ends it leaves nothing either
    with tempfile.TemporaryDirectory(prefix="headrace-kill-demo-") as folder:
        well = play(scenes, Path(folder))
    print("Every request ended as promised." if well else "A request did not end as promised.")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
