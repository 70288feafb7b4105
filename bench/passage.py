"""What a passage between two processes costs on this machine: a request makes about seven of them, a token three.

Machines differ in it by a factor of two either way, whatever their Python takes for a step, so a run says it beside its
figures (`speed` says the other).
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hiredis import Reader

from bench.loop import factory
from bench.processes import cpu_seconds
from console.embedded.valkey import EmbeddedValkey, ValkeySettings

_WARM, _COUNTED = 500, 4000


@dataclass(frozen=True, slots=True)
class Passage:
    """There and back once, nobody else at work: microseconds by the clock (the median), of the client's CPU, of the
    server's CPU."""

    wall: float
    client: float
    server: float

    def __str__(self) -> str:
        return f"PING there and back {self.wall:.0f} us, CPU {self.client:.0f} us here, {self.server:.0f} in the server"


def measure() -> Passage:
    """PING to a server of its own, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder), ValkeySettings(password="yardstick", tied=True))
        server.start()
        try:
            with asyncio.Runner(loop_factory=factory()) as runner:
                return runner.run(_measure(server))
        finally:
            server.stop()


class _Pinger(asyncio.Protocol):
    """One question under way."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._waiter: asyncio.Future[None]
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is none by isinstance

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._reader.gets() is not False:
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)

    async def ask(self, command: bytes) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(command)
        await self._waiter


def _cpu(server: EmbeddedValkey) -> float:
    return cpu_seconds({"server": [server.pid]})["server"]


async def _measure(server: EmbeddedValkey) -> Passage:
    _, pinger = await asyncio.get_running_loop().create_connection(_Pinger, "127.0.0.1", server.port)
    await pinger.ask(b"AUTH yardstick\r\n")
    for _ in range(_WARM):
        await pinger.ask(b"PING\r\n")
    took, before, began = list[float](), _cpu(server), time.process_time()
    for _ in range(_COUNTED):
        sent = time.perf_counter()
        await pinger.ask(b"PING\r\n")
        took.append(time.perf_counter() - sent)
    client, there = time.process_time() - began, _cpu(server) - before
    pinger.transport.abort()
    await pinger.gone
    return Passage(median(took) * 1e6, client / _COUNTED * 1e6, there / _COUNTED * 1e6)
