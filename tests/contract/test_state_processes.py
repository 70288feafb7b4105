"""Who is there: the twin and a real server; then what only the real one can get wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from base.clock import SystemClock
from runtime.client import Client
from schemas.errors import Unavailable
from schemas.records import ProcessRecord
from state.memory import MemoryProcesses
from state.processes import KEY, SILENT_MS, RedisProcesses
from state.proofs import Signed
from tests.console_support import ring
from tests.state_support import FakeClock, Gone

RULES = ProcessRecord(
    consumer="rules-7-abc", rooms=("rules",), pid=7, host="here", started_ms=1_000, version="0.1.0", health="http://h:1"
)
DOOR = replace(RULES, consumer="ingress-8-def", rooms=("ingress",), addresses={"ingress": "http://h:2"})

Either = MemoryProcesses | RedisProcesses


@pytest.fixture(params=["memory", "valkey"])
def processes(request: pytest.FixtureRequest, redis: Client) -> Either:
    return MemoryProcesses(SystemClock()) if request.param == "memory" else RedisProcesses(redis)


async def shown(processes: Either) -> list[ProcessRecord]:
    """Everybody who is there, without the time of the last word."""
    return [replace(record, seen_ms=0) for record in await processes.list()]


async def test_nobody_is_there_before_somebody_speaks(processes: Either) -> None:
    assert await shown(processes) == []


async def test_announced_processes_are_listed_by_name_with_all_they_said(processes: Either) -> None:
    await processes.announce(RULES)
    await processes.announce(DOOR)
    assert await shown(processes) == [DOOR, RULES]


async def test_the_last_word_of_a_process_counts(processes: Either) -> None:
    await processes.announce(RULES)
    first = (await processes.list())[0].seen_ms
    await processes.announce(replace(RULES, state="troubled", trouble="redis: away"))
    (found,) = await processes.list()
    assert (found.state, found.trouble) == ("troubled", "redis: away") and found.seen_ms >= first > 0


async def test_a_process_that_takes_itself_out_is_gone_and_may_do_so_twice(processes: Either) -> None:
    await processes.announce(RULES)
    await processes.announce(DOOR)
    await processes.withdraw(RULES.consumer)
    await processes.withdraw(RULES.consumer)
    assert await shown(processes) == [DOOR]


async def test_a_silent_process_drops_out_of_the_twin() -> None:
    clock = FakeClock()
    processes = MemoryProcesses(clock)
    await processes.announce(RULES)
    clock.advance(SILENT_MS / 1000 - 1)
    assert len(await processes.list()) == 1
    clock.advance(1)
    assert await processes.list() == []


class Later:
    """A server whose clock is ahead."""

    def __init__(self, redis: Client, ms: int) -> None:
        self._redis, self._ms = redis, ms

    async def execute(self, *parts: str | bytes | int | float) -> object:
        reply = await self._redis.execute(*parts)
        return [int(reply[0]) + self._ms // 1000, reply[1]] if parts == ("TIME",) else reply

    async def script(self, text: str, keys: object, args: object) -> object:
        raise AssertionError("no script is needed here")


async def test_a_silent_process_drops_out_of_the_server_and_leaves_nothing(redis: Client) -> None:
    await RedisProcesses(redis).announce(RULES)
    assert len(await RedisProcesses(Later(redis, SILENT_MS - 2_000)).list()) == 1
    assert await RedisProcesses(Later(redis, SILENT_MS)).list() == []
    assert await redis.execute("HLEN", KEY) == 0


async def test_what_others_wrote_is_no_process(redis: Client) -> None:
    processes = RedisProcesses(redis, proofs=Signed(ring()))
    await processes.announce(RULES)
    (raw,) = await redis.execute("HVALS", KEY)
    await redis.execute("HSET", KEY, "rules-9-xyz", raw, "rules-10-xyz", b"{}")
    assert await shown(processes) == [RULES]


async def test_a_server_that_is_away_is_no_empty_list() -> None:
    with pytest.raises(Unavailable):
        await RedisProcesses(Gone()).list()
