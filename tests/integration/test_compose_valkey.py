"""The Valkey of compose.yaml, started here with the words it gets there, is one that Headrace does not refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path

from base.clock import SystemClock
from base.ids import SystemRandom
from base.ports import free_port
from console.embedded.processes import die_with_parent
from console.embedded.valkey import server_binary
from runtime.client import Address, Client
from runtime.topology import ServerFacts, server_facts, unsafe
from schemas.errors import Unavailable
from tests.deploy_support import compose
from tests.servers import TEST_PASSWORD


async def test_the_server_that_compose_starts_is_safe(tmp_path: Path) -> None:
    words = [
        TEST_PASSWORD if "VALKEY_PASSWORD" in word else word for word in compose()["services"]["valkey"]["command"]
    ]
    port = free_port()
    here = [str(server_binary()), *words[1:], "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(*here, stdout=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent)
    try:
        assert unsafe(await facts(f"redis://:{TEST_PASSWORD}@127.0.0.1:{port}/0")) == []
    finally:
        process.terminate()
        await process.wait()


async def facts(url: str) -> ServerFacts:
    """What the server says of itself, once it answers."""
    clock = SystemClock()
    until = clock.monotonic() + 20
    while True:
        client = Client(Address.parse(url), clock, SystemRandom(), name="test")
        try:
            await client.connect()
            return await server_facts(client)
        except Unavailable:
            assert clock.monotonic() < until
            await clock.sleep(0.05)
        finally:
            await client.close()
