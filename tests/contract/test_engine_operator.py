"""The operator's view of delivery on a real server: dead letters and group lag."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from runtime.dlq import DeadLetters
from runtime.inspect import Inspector
from runtime.tidy import forget_dead
from runtime.topology import apply, load
from schemas import envelope as wire
from schemas.commands import StopDeployment
from schemas.outcomes import Dead, Delivery, Outcome
from schemas.ports import Redis
from tests.engine_support import PARTITION, REQUESTS, House, P, seals
from tests.run_support import FAMILIES, PARTITIONS, Hands, RedisWorld, answer, open_gates, open_world, until


@pytest_asyncio.fixture
async def house(valkey_cluster: str) -> AsyncIterator[House]:
    """Engines over a real server; stopped at the end."""
    async with open_world("valkey", lambda: valkey_cluster) as world:
        made = House(world)
        yield made
        await made.close()


def _server(house: House) -> RedisWorld:
    assert isinstance(house.world, RedisWorld)
    return house.world


async def _bury(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
    return [Dead(f"no {delivery.run[-4:]}") for delivery in deliveries]


async def _letters(house: House, count: int) -> tuple[DeadLetters, list[str]]:
    """`count` dead requests, oldest first."""
    await house.engine(_bury)
    runs = []
    for number in range(count):
        runs.append(await house.accept())
        await until(lambda n=number: _has(house, n + 1))  # type: ignore[misc]
    return DeadLetters(_server(house).redis, seals("console"), PARTITIONS), runs


async def _has(house: House, count: int) -> bool:
    return len(await house.reasons()) == count


async def test_letters_are_listed_newest_first_without_their_content(house: House) -> None:
    letters, runs = await _letters(house, 3)
    listed = await letters.list()
    assert [letter.run for letter in listed] == runs[::-1]
    assert [letter.run for letter in await letters.list(count=2)] == runs[:0:-1]
    assert [letter.run for letter in await letters.list(after=listed[0].id)] == runs[1::-1]
    first = listed[-1]
    assert (first.stream, first.group, first.starts, first.fields) == (REQUESTS, "rules", 1, {})
    assert first.reason == f"no {runs[0][-4:]}" and first.id.startswith(f"{PARTITION}:")


async def test_shown_letter_is_opened(house: House) -> None:
    letters, runs = await _letters(house, 1)
    (listed,) = await letters.list()
    shown = await letters.show(listed.id)
    assert shown is not None and runs[0] in shown.fields["e"] and shown.fields["s"].startswith("t1:")


async def test_letter_is_sealed_where_it_lies(house: House) -> None:
    _, runs = await _letters(house, 1)
    ((_, letter),) = await house.world.entries(f"{P}:dlq")
    assert runs[0].encode() not in letter[b"d"]


@pytest.mark.parametrize("id", ["1:5-5", "99:1-1", "nonsense", "commands:1-1"])
async def test_letter_that_is_not_there(house: House, id: str) -> None:
    letters = DeadLetters(_server(house).redis, seals("console"), PARTITIONS)
    if id != "nonsense":
        assert await letters.show(id) is None and await letters.replay(id) is None
        assert await letters.purge([id]) == 0
    else:
        assert await letters.show(id) is None


async def test_purged_letter_is_gone(house: House) -> None:
    letters, _ = await _letters(house, 2)
    newest, oldest = await letters.list()
    assert await letters.purge([newest.id, "1:5-5"]) == 1
    assert [letter.id for letter in await letters.list()] == [oldest.id]


async def test_replayed_command_is_handled_again_as_it_was_signed(house: House) -> None:
    """A command dies once, is replayed, and the second time its signature still holds."""
    server = _server(house)
    seen: list[str] = []

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        seen.extend(delivery.event.deployment for delivery in deliveries)
        return [Dead("not now") for _ in deliveries]

    engine = await house.engine(handle, stream="commands", group="provisioner", keys=("commands",))
    e = wire.encode(StopDeployment(command_id="c", deployment="d1"), id="c", by="console")
    await server.add("commands", {"e": e, "s": wire.sign(seals("console").signer, "commands", e).s})
    letters = DeadLetters(server.redis, seals("console"), PARTITIONS)
    await until(letters.list)
    (letter,) = await letters.list()
    assert letter.id.startswith("commands:") and letter.run == ""
    assert await letters.replay(letter.id)
    await until(lambda: len(seen) == 2)
    await until(lambda: engine.counters.dead == 2)
    assert seen == ["d1", "d1"] and len(await letters.list()) == 1


async def test_lag_counts_unread_and_pending_and_the_oldest(house: House) -> None:
    server = _server(house)
    topology = load()
    await apply(topology, PARTITIONS, server.redis)
    inspector = Inspector(server.redis, topology, PARTITIONS)
    assert all(lag.lag == lag.pending == lag.oldest_ms == 0 for lag in await inspector.lags())
    for _ in range(3):
        await house.accept()
    await house.ghost("rules", count=2)
    by_group = {lag.group: lag for lag in await inspector.lags() if lag.stream == REQUESTS}
    assert set(by_group) == {"authorization", "rules", "persons"}
    rules, persons = by_group["rules"], by_group["persons"]
    assert (rules.length, rules.lag, rules.pending, rules.consumers) == (3, 1, 2, 1)
    assert (persons.lag, persons.pending, persons.consumers) == (3, 0, 0)
    assert await inspector.live() == 3 and await inspector.dead() == 0


class Quick:
    """A server on which every pending entry is done between two looks at it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        if parts[0] == "XPENDING":
            _, first, last, _ = await self._redis.execute(*parts)
            await self._redis.execute("XACK", *parts[1:], *{first, last})
        return await self._redis.execute(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        return await self._redis.script(text, keys, args)


async def test_lag_of_entries_that_are_done_while_it_looks(house: House) -> None:
    server = _server(house)
    await apply(load(), PARTITIONS, server.redis)
    await house.accept()
    await house.ghost("rules")
    (rules,) = [lag for lag in await Inspector(Quick(server.redis), load(), PARTITIONS).lags() if lag.pending]
    assert (rules.group, rules.oldest_ms) == ("rules", 0)


async def test_lag_shows_the_lanes(house: House) -> None:
    server = _server(house)
    hands = Hands(house.world)
    await (await house.world.groups()).ensure(hands.lane, "router")
    await hands.clear()
    lags = {lag.stream: lag for lag in await Inspector(server.redis, load(), PARTITIONS).lags()}
    assert (lags[hands.lane].group, lags[hands.lane].lag) == ("router", 1)


async def test_lag_shows_who_waits_before_a_lane_for_a_slot(house: House) -> None:
    server = _server(house)
    hands = Hands(house.world)
    await (await house.world.groups()).ensure(hands.lane, "router")
    await hands.accept()
    await open_gates(server.scripts, slots=0)  # no router has room any more
    for family in FAMILIES:
        await server.scripts.verdict(answer(hands.run, family))
    (lane,) = [lag for lag in await Inspector(server.redis, load(), PARTITIONS).lags() if lag.stream == hands.lane]
    assert (lane.lag, lane.pending, lane.waiting) == (0, 0, 1) and lane.oldest_ms >= 0


async def test_consumers_are_shown_with_what_they_hold(house: House) -> None:
    server = _server(house)
    await apply(load(), PARTITIONS, server.redis)
    for _ in range(3):
        await house.accept()
    await house.ghost("rules", count=2)
    found = await Inspector(server.redis, load(), PARTITIONS).consumers()
    (ghost,) = found
    assert (ghost.stream, ghost.group, ghost.pending) == (REQUESTS, "rules", 2)
    assert 0 <= ghost.idle_ms < 60_000


async def test_consumers_that_died_with_empty_hands_are_forgotten(house: House) -> None:
    server = _server(house)
    await apply(load(), PARTITIONS, server.redis)
    for name in ("alive", "dead"):
        await server.redis.execute("XGROUP", "CREATECONSUMER", REQUESTS, "rules", name)
    await house.accept()
    await house.ghost("rules")
    eyes = Inspector(server.redis, load(), PARTITIONS)
    assert await forget_dead(eyes, server.scripts, {"alive"}) == 0  # nobody is silent for long enough
    assert await forget_dead(eyes, server.scripts, {"alive"}, dead_ms=0) == 1
    assert {row.consumer for row in await eyes.consumers()} == {"alive", "ghost"}  # the ghost holds an entry


async def test_dead_letters_are_counted_for_the_group_that_gave_up(house: House) -> None:
    await _letters(house, 2)
    redis = _server(house).redis
    inspector = Inspector(redis, load(), PARTITIONS)
    assert await inspector.dead_by_group() == {(REQUESTS, "rules"): 2}
    await redis.execute("XADD", "{commands}:dlq", "*", "stream", "commands", "group", "provisioner")
    assert (await inspector.dead_by_group())["commands", "provisioner"] == 1
    assert await inspector.dead() == 3


async def test_applying_the_topology_twice_changes_nothing(house: House) -> None:
    redis = _server(house).redis
    assert len(await apply(load(), PARTITIONS, redis)) == 6 * PARTITIONS + 1
    assert await apply(load(), PARTITIONS, redis) == []


async def test_group_that_left_the_topology_is_destroyed(house: House) -> None:
    redis = _server(house).redis
    await apply(load(), PARTITIONS, redis)
    await redis.execute("XGROUP", "CREATE", REQUESTS, "former", "0")
    assert await apply(load(), PARTITIONS, redis) == [f"destroyed group former on {REQUESTS}"]
