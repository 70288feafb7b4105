"""What idle watchers cost, and whether their neighbours feel them: `scripts/bench-watchers`, about two minutes.

    streams    so many readers of `GET /v1/streams/{run}` on runs whose engine is silent in mid-answer
    requests   so many requests that wait in the queue of an engine with one place, each with its client

For each kind: memory of the ingress per watcher, CPU of the ingress and of the server while nothing happens, and a
steady load of short chats beside them, against the same load before. One ingress, a process per room; engine, watchers
and load share the machine. Clients get a comment every 15 s all the while.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from time import monotonic
from typing import Any, cast

from base.ports import free_port
from bench import processes
from bench.client import Plan
from bench.load import Load, Pace, chat_request
from bench.loop import run_fast
from bench.machine import ROOT
from bench.measure import MockEngine
from bench.peers import Headrace, Peer, StartError
from bench.stats import milliseconds

NARROW, WIDE = "narrow", "mock"  # the second is what `--engine` names
RUNS = 100
_SETTLE_S, _PATIENCE_S = 4.0, 60.0
_NAMES = ("watchers", "RSS MB", "kB each", "ingress %", "server %", "chat p50", "p99", "p99 ratio", "errors")
_HEAD = f"{'idle watchers':15}" + "".join(f"{name:>11}" for name in _NAMES)
_AT_ONCE = 100  # connections being opened
_RATE = 40.0  # chats a second of the neighbour


class Watcher(asyncio.Protocol):
    """One connection that only listens. begun: its first bytes, or what went wrong."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.head = b""
        self.begun: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self.head += data
            if b"\ndata: " in self.head:
                self.begun.set_result(self.head)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.begun.done():
            self.begun.set_exception(StartError(f"a watcher was turned away: {self.head[:300]!r}"))
            self.begun.exception()


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one state: memory of the ingress in MB, shares of a core while idle, the neighbour's latencies in ms."""

    watchers: int
    memory: float
    ingress: float
    server: float
    chats: Mapping[str, float]
    errors: int


class Measurement:
    """One Headrace, its ingress and its neighbour."""

    def __init__(self, peer: Peer, seconds: float) -> None:
        self._peer, self._seconds = peer, seconds

    async def figures(self, watchers: Sequence[Watcher]) -> Figures:
        """As it stands with these watchers open."""
        await asyncio.sleep(_SETTLE_S)
        memory = processes.memory(self._peer.groups)[self._group("ingress")].rss
        before = processes.cpu_seconds(self._peer.groups)
        await asyncio.sleep(self._seconds)
        after = processes.cpu_seconds(self._peer.groups)
        used = {name: (after[name] - before[name]) / self._seconds for name in after}
        report = await self._neighbour()
        gone = sum(watcher.transport is None for watcher in watchers)
        if gone:
            raise StartError(f"{gone} of {len(watchers)} watchers were cut")
        return Figures(
            len(watchers),
            memory,
            used[self._group("ingress")],
            used[self._group("valkey")],
            milliseconds(report["waited"]),
            report["errors"],
        )

    def _group(self, name: str) -> str:
        return next(group for group in self._peer.groups if name in group.split("+"))

    async def _neighbour(self) -> dict[str, Any]:
        host, port, request = self.chat(WIDE, stream=False)
        load = Load(Plan(host, port, repeat(request), False), Pace(0, _RATE, 0, 0, self._seconds, 30.0, 200))
        driving = asyncio.create_task(load.open())
        await asyncio.sleep(1.0)
        load.tally.begin()
        await asyncio.sleep(self._seconds)
        load.tally.end()
        load.stop()
        await driving
        await load.drain()
        return load.tally.report() | {"waited": load.tally.latency}

    def chat(self, model: str, *, stream: bool, words: str = "") -> tuple[str, int, bytes]:
        """A request; words: what its prompt asks of the engine."""
        host, port, request = chat_request(
            self._peer.url, model, self._peer.key, [], stream=stream, usage=False, tokens=4, prompt_chars=40
        )
        if not words:
            return host, port, request
        head, _, body = request.partition(b"\r\n\r\n")
        said = json.loads(body)
        said["messages"][0]["content"] += words
        told = json.dumps(said).encode()
        head = head.replace(b"content-length: %d" % len(body), b"content-length: %d" % len(told))
        return host, port, head + b"\r\n\r\n" + told

    async def streams(self, count: int) -> list[Watcher]:
        """Silent runs and their readers; the readers of a run's own client are among them."""
        host, port, request = self.chat(WIDE, stream=True, words=" @@hang=1")
        clients = await opened(host, port, [request] * min(RUNS, count))
        heads = [watcher.begun.result() for watcher in clients]
        runs = [head.partition(b"x-headrace-run: ")[2].partition(b"\r\n")[0].decode() for head in heads]
        asks = [
            f"GET /v1/streams/{runs[number % len(runs)]}?after=0 HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {self._peer.key}\r\n\r\n".encode()
            for number in range(count - len(clients))
        ]
        return clients + await opened(host, port, asks)

    async def requests(self, count: int) -> list[Watcher]:
        """Requests that wait for the one place of an engine."""
        host, port, request = self.chat(NARROW, stream=True, words=" @@hang=1")
        return await opened(host, port, [request] * count, begin=False)


async def opened(host: str, port: int, asks: Sequence[bytes], *, begin: bool = True) -> list[Watcher]:
    """All connected, `_AT_ONCE` at a time; begin: each has its first event."""
    loop, found = asyncio.get_running_loop(), list[Watcher]()
    for start in range(0, len(asks), _AT_ONCE):
        page = asks[start : start + _AT_ONCE]
        made = await asyncio.gather(*(loop.create_connection(partial(Watcher, ask), host, port) for ask in page))
        found += [watcher for _, watcher in made]
        if begin:
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.gather(*(watcher.begun for _, watcher in made))
        else:
            await asyncio.sleep(_AT_ONCE / 400)  # slower than what authorization takes in
    return found


async def play(peer: Peer, mock: MockEngine, kinds: Sequence[str], count: int, seconds: float) -> list[str]:
    """The lines of the table."""
    mock.set({"ttft_ms": 5, "itl_ms": 0})
    measurement = Measurement(peer, seconds)
    bare = await measurement.figures([])
    lines = [_HEAD, *table("none", bare, bare)]
    for kind in kinds:
        began = monotonic()
        watchers = await getattr(measurement, kind)(count)
        print(f"{count} {kind} open after {monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        lines += table(kind, await measurement.figures(watchers), bare)
        for watcher in watchers:
            if watcher.transport:
                watcher.transport.abort()
        await asyncio.sleep(_SETTLE_S)
    return [*lines, *table("none, after", await measurement.figures([]), bare)]


def table(kind: str, found: Figures, bare: Figures) -> Iterator[str]:
    """One line for each state, against the bare one. The last bare one shows how much is noise."""
    each = (found.memory - bare.memory) * 1000 / found.watchers if found.watchers else 0.0
    p50, p99 = found.chats.get("p50", 0.0), found.chats.get("p99", 0.0)
    ratio = p99 / bare.chats["p99"]
    yield (
        f"{kind:15}{found.watchers:11}{found.memory:11.0f}{each:11.1f}{found.ingress * 100:11.1f}"
        f"{found.server * 100:11.1f}{p50:11.1f}{p99:11.1f}{ratio:11.2f}{found.errors:11}"
    )


def measure(program: Path, folder: Path, given: argparse.Namespace) -> list[str]:
    """All kinds on one Headrace."""
    mock = MockEngine(folder / "mock.log", None)
    config = folder / "headrace.yaml"
    narrow = {"name": NARROW, "url": mock.url, "slots": 1, "private": True}
    settings = {"models": [narrow], "runs": {"most": 50_000}, "router": {"idle_timeout_s": 900}}
    config.write_text(json.dumps(settings))
    words = ["--config", str(config), "--processes", "split"]
    headrace = Headrace("headrace", program, folder / "data", free_port(), mock.url, words, None)
    try:
        peer, _, _ = headrace.ready(90)
        found: list[str] = []

        async def run() -> int:
            found.extend(await play(peer, mock, given.only or ["streams", "requests"], given.watchers, given.seconds))
            return 0

        run_fast(run())
        return found
    finally:
        headrace.stop()
        mock.program.stop(5)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="scripts/bench-watchers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--watchers", type=int, default=10_000, help="of each kind")
    parser.add_argument("--seconds", type=float, default=10.0, help="of silence, and then of the neighbour's load")
    parser.add_argument("--only", action="append", choices=["streams", "requests"])
    parser.add_argument("--headrace", type=Path, default=ROOT / ".venv/bin/headrace")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit unwinds, so what was started is stopped
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        try:
            print("\n".join(measure(given.headrace, Path(folder), given)))
        except (StartError, OSError, TimeoutError) as error:
            print(f"bench-watchers: {error or type(error).__name__}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
