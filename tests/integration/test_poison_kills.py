"""A run that kills every process it is handed to: three processes die, then it is dead, and its neighbours go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest_asyncio

from console.embedded.processes import die_with_parent
from tests.engine_support import REQUESTS, House
from tests.run_support import RedisWorld, until

ROOT = Path(__file__).resolve().parents[2]


@pytest_asyncio.fixture
async def world(valkey: str) -> AsyncIterator[RedisWorld]:
    made = RedisWorld(valkey)
    await made.start()
    yield made
    await made.stop()


class Workers:
    """One worker at a time; another takes the place of one that died, as a supervisor does it."""

    def __init__(self, url: str, deadly: str) -> None:
        self._words = [sys.executable, "-m", "tests.integration.poison_program", url, deadly]
        self._process = self._start()
        self.deaths = 0

    def look(self) -> None:
        """Replace a dead one."""
        if self._process.poll() is not None:
            self.deaths += 1
            self._process = self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, cwd=ROOT, preexec_fn=die_with_parent)


@contextmanager
def workers(url: str, deadly: str) -> Iterator[Workers]:
    made = Workers(url, deadly)
    try:
        yield made
    finally:
        made.stop()


async def test_a_run_that_kills_its_process_is_dead_after_three_starts(world: RedisWorld, valkey: str) -> None:
    house = House(world)
    before, deadly, after = [await house.accept(), await house.accept()], await house.accept(), await house.accept()

    with workers(valkey, deadly) as going:

        async def settled() -> bool:
            going.look()
            return bool(await world.redis.execute("EXISTS", "started")) and await house.settled()

        await until(settled, 30)
        late = await house.accept()
        await until(lambda: _handled(world, late))
    started = await runs(world)
    assert going.deaths == 3 and started.count(deadly) == 3
    assert {*before, after} <= set(started)
    assert await house.reasons() == ["started 3 times and never finished"]
    assert (await world.runs.fields(deadly))["outcome"] == b"failed"
    assert {(await world.runs.fields(run))["state"] for run in (*before, after, late)} == {b"checking"}
    assert await world.starts(REQUESTS, "rules") == {}


async def runs(world: RedisWorld) -> list[str]:
    """Every start so far."""
    return [run.decode() for run in await world.redis.execute("LRANGE", "started", 0, -1)]


async def _handled(world: RedisWorld, run: str) -> bool:
    return run in await runs(world)
