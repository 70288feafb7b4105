"""A process tells how it is, until it has left; a store that is away keeps it from nothing."""

from __future__ import annotations

import os

from base.clock import SystemClock
from base.health import Health
from console.presence import Presence, make_record
from schemas.errors import Unavailable
from schemas.records import ProcessRecord
from state.memory import MemoryProcesses
from tests.state_support import FakeClock


def presence(book: MemoryProcesses, health: Health) -> tuple[Presence, ProcessRecord]:
    record = make_record("rules-1-abc", ("rules",), health, {"console": "http://h:1"}, "0.1.0", 5)
    return Presence(book, record.consumer, health, SystemClock()), record


async def test_a_process_is_known_from_its_entry_to_its_leave() -> None:
    book, health = MemoryProcesses(FakeClock()), Health("rules")
    one, record = presence(book, health)
    await one.tell()
    assert await book.list() == []
    await one.enter(record)
    (found,) = await book.list()
    assert (found.consumer, found.rooms, found.pid, found.state) == ("rules-1-abc", ("rules",), os.getpid(), "ready")
    assert (found.addresses, found.started_ms) == ({"console": "http://h:1"}, 5)
    await one.leave()
    await one.leave()
    assert await book.list() == []


async def test_what_the_readiness_check_says_is_told() -> None:
    book, health = MemoryProcesses(FakeClock()), Health("rules")
    one, record = presence(book, health)

    async def away() -> str:
        return "no answer"

    health.add("redis", away)
    await one.enter(record)
    assert [(row.state, row.trouble) for row in await book.list()] == [("troubled", "redis: no answer")]
    health.draining = True
    await one.tell_if_possible()
    assert [(row.state, row.trouble) for row in await book.list()] == [("draining", "redis: no answer")]
    await one.leave()


async def test_a_store_that_is_away_keeps_nobody_from_going() -> None:
    class Away(MemoryProcesses):
        async def announce(self, record: ProcessRecord) -> None:
            if record.state == "draining":
                raise Unavailable("away")
            await super().announce(record)

    health = Health("rules")
    one, record = presence(Away(FakeClock()), health)
    await one.enter(record)
    health.draining = True
    await one.tell_if_possible()
    await one.leave()
