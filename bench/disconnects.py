"""How fast an engine is left when its client leaves: `scripts/bench-disconnects`, about a minute.

Clients are opened in batches, each batch until all stand in one phase of their run, and then close their connections
one after the other. Measured is the time from a client's close to

    first byte, mid-stream, unary    the moment at which the engine's connection was closed, by the engine's own clock
    checking, queued                 the end of the run, by the server's clock in whole ms (no engine was called)

`checking`: the group `persons` is halted meanwhile. `queued`: the engine has one place, and it is taken. One machine,
one clock; a process per room.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any

import orjson
from redis.asyncio import Redis

from base.ports import free_port
from bench.load import chat_request
from bench.loop import run_fast
from bench.machine import ROOT
from bench.measure import MockEngine
from bench.peers import Headrace, Peer, StartError, fetch
from bench.stats import percentile

PHASES = ("checking", "queued", "first byte", "mid-stream", "unary")
NARROW, WIDE = "narrow", "mock"  # the second is what `--engine` names
#: What the prompt asks of the engine, so that the run stays where it is.
_ASKS = {"mid-stream": "@@hang=3"}
_NEVER_MS = 600_000.0
_GAP_S = 0.005  # between two clients that leave
_PATIENCE_S = 15.0


@dataclass(slots=True)
class Client:
    """One connection and when it was closed: monotonic seconds, and ms since the epoch."""

    name: str
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    closed_s: float = 0.0
    closed_ms: float = 0.0

    async def leave(self) -> None:
        """Close, as a client that gives up does."""
        self.closed_s, self.closed_ms = monotonic(), time() * 1000
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Measurement:
    """Batches of clients of one Headrace."""

    def __init__(self, peer: Peer, mock: MockEngine, redis: Redis) -> None:
        self._peer, self._mock, self._redis = peer, mock, redis
        self._count = 0

    async def batch(self, phase: str, size: int) -> list[float]:
        """Milliseconds of each client that left."""
        clients = [await self.open(phase) for _ in range(size)]
        names = {client.name for client in clients}
        engine = phase in ("first byte", "mid-stream", "unary")
        await reached(f"{phase} was not reached", lambda: self._arrived(names) if engine else self._waits(phase, names))
        for client in clients:
            await client.leave()
            await asyncio.sleep(_GAP_S)
        ends: dict[str, float] = {}
        await reached(f"{phase} was not left", lambda: self._left(ends, names) if engine else self._ended(ends, names))
        if engine:
            return [(ends[client.name] - client.closed_s) * 1000 for client in clients]
        return [max(0.0, ends[client.name] - client.closed_ms) for client in clients]

    async def open(self, phase: str) -> Client:
        """A client whose request was sent, and answered as far as the phase goes."""
        self._count += 1
        name = f"{phase.replace(' ', '-')}-{self._count}"
        model = NARROW if phase == "queued" else WIDE
        host, port, request = chat_request(
            self._peer.url, model, self._peer.key, [f"x-client-request-id: {name}"], stream=phase != "unary",
            usage=False, tokens=16, prompt_chars=50,
        )  # fmt: skip
        head, _, body = request.partition(b"\r\n\r\n")
        asked = orjson.loads(body)
        asked["messages"][0]["content"] += f" @@id={name} {_ASKS.get(phase, '')}"
        said = orjson.dumps(asked)
        head = head.replace(b"content-length: %d" % len(body), b"content-length: %d" % len(said))
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head + b"\r\n\r\n" + said)
        await writer.drain()
        if phase == "mid-stream":
            for _ in range(3):
                await asyncio.wait_for(reader.readuntil(b"data: "), _PATIENCE_S)
        return Client(name, writer, reader)

    async def _ledger(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        found: Mapping[str, Sequence[Mapping[str, Any]]] = await asyncio.to_thread(
            fetch, f"{self._mock.root}/_mock/ledger"
        )
        return found

    async def _arrived(self, names: set[str]) -> bool:
        return names <= (await self._ledger()).keys()

    async def _left(self, ends: dict[str, float], names: set[str]) -> bool:
        ledger = await self._ledger()
        ends |= {name: ledger[name][-1]["left_s"] for name in names if ledger[name][-1]["left_s"]}
        return ends.keys() >= names

    async def _runs(self, names: set[str]) -> dict[str, dict[Any, Any]]:
        """Name of the client -> the hash of its run."""
        found: dict[str, dict[Any, Any]] = {}
        async for key in self._redis.scan_iter("*:run:*", 1000):
            fields: dict[Any, Any] = await self._redis.hgetall(key)
            name = orjson.loads(fields[b"a"])["data"].get("client_request_id", "") if b"a" in fields else ""
            if name in names:
                found[name] = fields
        return found

    async def _waits(self, phase: str, names: set[str]) -> bool:
        runs = await self._runs(names)
        wanted = b"queued" if phase == "queued" else b"checking"
        return len(runs) == len(names) and all(
            run[b"state"] == wanted and b"o:authorization" in run for run in runs.values()
        )

    async def _ended(self, ends: dict[str, float], names: set[str]) -> bool:
        runs = await self._runs(names)
        ends |= {name: float(run[b"t:ended"]) for name, run in runs.items() if b"t:ended" in run}
        return ends.keys() >= names


async def reached(what: str, done: Callable[[], Awaitable[bool]]) -> None:
    """Poll; StartError when it does not come to pass."""
    end = monotonic() + _PATIENCE_S
    while not await done():
        if monotonic() > end:
            raise StartError(f"the phase {what} within {_PATIENCE_S:.0f} s")
        await asyncio.sleep(0.05)


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """The process stands still for as long as the context is open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def server_url(data: Path) -> str:
    """Address of the embedded Valkey."""
    secret = json.loads((data / "secrets.json").read_text())["valkey_password"]
    port = json.loads((data / "valkey" / "server.json").read_text())["port"]
    return f"redis://:{secret}@127.0.0.1:{port}/0"


async def play(peer: Peer, mock: MockEngine, data: Path, count: int) -> dict[str, list[float]]:
    """Milliseconds by phase."""
    redis = Redis.from_url(server_url(data))
    persons = json.loads((data / "connection.json").read_text())["pids"]["persons"]
    measurement = Measurement(peer, mock, redis)
    found: dict[str, list[float]] = {}
    try:
        for phase in PHASES:
            mock.set({"ttft_ms": 0 if phase == "mid-stream" else _NEVER_MS, "itl_ms": 0})
            found[phase] = await _phase(measurement, phase, persons, count)
    finally:
        await redis.aclose()
    return found


async def _phase(measurement: Measurement, phase: str, persons: int, count: int) -> list[float]:
    values: list[float] = []
    holder = await measurement.open(phase) if phase == "queued" else None
    await asyncio.sleep(0.5 if holder else 0)
    while len(values) < count:
        size = min(50, count - len(values))
        if phase == "checking":
            with halted(persons):
                values += await measurement.batch(phase, size)
        else:
            values += await measurement.batch(phase, size)
    if holder:
        await holder.leave()
    return values


def table(found: Mapping[str, Sequence[float]]) -> list[str]:
    """One line per phase."""
    lines = [f"{'client left while':20}{'n':>6}{'p50':>9}{'p99':>9}{'max':>9}   ms"]
    for phase, values in found.items():
        ordered = sorted(values)
        p50, p99 = percentile(ordered, 0.5), percentile(ordered, 0.99)
        lines.append(f"{phase:20}{len(ordered):6}{p50:9.1f}{p99:9.1f}{ordered[-1]:9.1f}")
    return lines


def measure(program: Path, folder: Path, count: int) -> list[str]:
    """All phases on one Headrace."""
    mock = MockEngine(folder / "mock.log", None)
    config = folder / "headrace.yaml"
    narrow = {"name": NARROW, "url": mock.url, "slots": 1, "private": True}
    config.write_text(json.dumps({"models": [narrow]}))
    words = ["--config", str(config), "--processes", "split"]
    headrace = Headrace("headrace", program, folder / "data", free_port(), mock.url, words, None)
    try:
        peer, _, _ = headrace.ready(90)
        found: dict[str, list[float]] = {}

        async def run() -> int:
            found.update(await play(peer, mock, folder / "data", count))
            return 0

        run_fast(run())
        return table(found)
    finally:
        headrace.stop()
        mock.program.stop(5)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="scripts/bench-disconnects", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="clients that leave in each phase")
    parser.add_argument("--headrace", type=Path, default=ROOT / ".venv/bin/headrace")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit unwinds, so what was started is stopped
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        try:
            print("\n".join(measure(given.headrace, Path(folder), given.count)))
        except StartError as error:
            print(f"bench-disconnects: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
