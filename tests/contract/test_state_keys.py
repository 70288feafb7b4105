"""Promises of ports.Keys: the twin and a real server, then the ages, outages and races of the real one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from runtime.client import Client, ServerError
from schemas.errors import Unavailable
from schemas.records import KeyRecord
from state.keys import RedisKeys
from state.memory import MemoryKeys
from tests.state_support import Breaking, FakeClock, Gone, Switch

KEY = KeyRecord(key_id="00000000000000aa", tenant="acme", name="app", secret_mac="ab" * 32, mac_kid="k1")
REVOKED = replace(KEY, revoked_ms=1)


@dataclass
class Record:
    """PostgreSQL's side: what it holds, whether it answers, how often it was asked."""

    rows: dict[str, KeyRecord] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    async def load(self, key_id: str) -> KeyRecord | None:
        self.asked += 1
        if self.away:
            raise Unavailable("PostgreSQL is away")
        return self.rows.get(key_id)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def record() -> Record:
    return Record({KEY.key_id: KEY})


@pytest.fixture(params=["memory", "valkey"])
def keys(request: pytest.FixtureRequest, redis: Client, clock: FakeClock, record: Record) -> MemoryKeys | RedisKeys:
    if request.param == "memory":
        return MemoryKeys(record.rows.values())
    return RedisKeys(redis, record.load, clock)


async def test_a_key_is_found_by_its_id(keys: MemoryKeys | RedisKeys) -> None:
    assert await keys.find(KEY.key_id) == KEY
    assert await keys.find(KEY.key_id) == KEY


async def test_an_unknown_id_is_nobody(keys: MemoryKeys | RedisKeys) -> None:
    assert await keys.find("ffffffffffffffff") is None


async def test_a_prefix_of_an_id_finds_nothing(keys: MemoryKeys | RedisKeys) -> None:
    await keys.find(KEY.key_id)
    assert await keys.find(KEY.key_id[:-1]) is None
    assert await keys.find(KEY.key_id[:8]) is None


async def test_a_projected_change_is_seen_at_once_in_this_process(keys: MemoryKeys | RedisKeys) -> None:
    await keys.find(KEY.key_id)
    await keys.project(REVOKED)
    assert await keys.find(KEY.key_id) == REVOKED


async def test_a_new_key_is_found_after_it_was_missed_and_announced(keys: MemoryKeys | RedisKeys) -> None:
    new = replace(KEY, key_id="00000000000000bb")
    assert await keys.find(new.key_id) is None
    await keys.project(new)
    keys.forget(new.key_id)
    assert await keys.find(new.key_id) == new


async def test_a_warm_key_asks_no_store(redis: Client, clock: FakeClock, record: Record) -> None:
    switch = Switch(redis)
    keys = RedisKeys(switch, record.load, clock)
    await keys.find(KEY.key_id)
    before = switch.calls
    for _ in range(5):
        await keys.find(KEY.key_id)
    assert (switch.calls, record.asked) == (before, 1)


async def test_postgres_is_asked_once_for_all_replicas(redis: Client, clock: FakeClock, record: Record) -> None:
    for _ in range(3):
        assert await RedisKeys(redis, record.load, clock).find(KEY.key_id) == KEY
    assert record.asked == 1


async def test_a_revoked_key_is_seen_by_other_replicas_as_soon_as_they_are_told(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    replicas = [RedisKeys(redis, record.load, clock) for _ in range(2)]
    for replica in replicas:
        assert await replica.find(KEY.key_id) == KEY
    record.rows[KEY.key_id] = REVOKED
    await replicas[0].project(REVOKED)
    replicas[1].forget(KEY.key_id)
    assert [await replica.find(KEY.key_id) for replica in replicas] == [REVOKED, REVOKED]


async def test_a_lost_event_and_a_lost_projection_hold_a_revocation_back_a_minute_at_most(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    keys = RedisKeys(redis, record.load, clock)
    await keys.find(KEY.key_id)
    record.rows[KEY.key_id] = REVOKED  # and the failover lost what was written to Redis
    await redis.execute("PEXPIRE", f"key:{KEY.key_id}", 86_400_000 - 29_000)
    clock.advance(31)
    assert await keys.find(KEY.key_id) == KEY
    await redis.execute("PEXPIRE", f"key:{KEY.key_id}", 86_400_000 - 60_000)
    clock.advance(29)
    assert await keys.find(KEY.key_id) == KEY
    clock.advance(2)
    assert await keys.find(KEY.key_id) == REVOKED


async def test_nobody_is_remembered_for_a_second_only(redis: Client, clock: FakeClock, record: Record) -> None:
    keys = RedisKeys(redis, record.load, clock)
    new = replace(KEY, key_id="00000000000000bb")
    assert await keys.find(new.key_id) is None
    assert await keys.find(new.key_id) is None
    assert record.asked == 1
    record.rows[new.key_id] = new
    clock.advance(1.1)
    assert await keys.find(new.key_id) == new


async def test_postgres_away_the_projection_serves_whatever_its_age(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    await RedisKeys(redis, record.load, clock).find(KEY.key_id)
    await redis.execute("PEXPIRE", f"key:{KEY.key_id}", 1_000_000)
    record.away = True
    assert await RedisKeys(redis, record.load, clock).find(KEY.key_id) == KEY


async def test_redis_away_postgres_answers(clock: FakeClock, record: Record) -> None:
    assert await RedisKeys(Gone(), record.load, clock).find(KEY.key_id) == KEY


async def test_both_stores_away_what_was_seen_serves_ten_minutes(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    switch = Switch(redis)
    keys = RedisKeys(switch, record.load, clock)
    await keys.find(KEY.key_id)
    switch.away = record.away = True
    clock.advance(599)
    assert await keys.find(KEY.key_id) == KEY
    clock.advance(2)
    with pytest.raises(Unavailable, match="check Redis and PostgreSQL"):
        await keys.find(KEY.key_id)


async def test_both_stores_away_a_stranger_is_not_refused_but_unavailable(clock: FakeClock, record: Record) -> None:
    record.away = True
    with pytest.raises(Unavailable):
        await RedisKeys(Gone(), record.load, clock).find(KEY.key_id)


async def test_both_stores_away_a_key_that_changed_is_not_served_from_memory(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    switch = Switch(redis)
    keys = RedisKeys(switch, record.load, clock)
    await keys.find(KEY.key_id)
    switch.away = record.away = True
    keys.forget(KEY.key_id)
    with pytest.raises(Unavailable):
        await keys.find(KEY.key_id)


async def test_missed_events_make_everything_cached_be_read_again(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    keys, other = RedisKeys(redis, record.load, clock), RedisKeys(redis, record.load, clock)
    await keys.find(KEY.key_id)
    await other.project(REVOKED)
    assert await keys.find(KEY.key_id) == KEY
    keys.forget_all()
    assert await keys.find(KEY.key_id) == REVOKED


async def test_a_reader_that_loaded_before_a_revocation_cannot_write_the_old_record_over_it(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    console = RedisKeys(redis, record.load, clock)

    async def slow_load(key_id: str) -> KeyRecord | None:
        found = await record.load(key_id)
        record.rows[key_id] = REVOKED
        await console.project(REVOKED)  # committed and projected between our read and our write
        return found

    assert await RedisKeys(redis, slow_load, clock).find(KEY.key_id) == REVOKED
    assert await RedisKeys(redis, record.load, clock).find(KEY.key_id) == REVOKED


async def test_what_was_read_while_the_key_changed_is_not_kept(redis: Client, clock: FakeClock, record: Record) -> None:
    async def load(key_id: str) -> KeyRecord | None:
        found = await record.load(key_id)
        reader.forget(key_id)
        return found

    reader = RedisKeys(redis, load, clock)
    assert await reader.find(KEY.key_id) == KEY
    await redis.execute("DEL", f"key:{KEY.key_id}")
    record.rows[KEY.key_id] = REVOKED
    assert await reader.find(KEY.key_id) == REVOKED


async def test_a_projection_in_a_foreign_form_is_read_from_postgres(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    await redis.execute("SET", f"key:{KEY.key_id}", b'{"nothing": "known"}', "PX", 86_400_000)
    assert await RedisKeys(redis, record.load, clock).find(KEY.key_id) == KEY


async def test_the_cache_keeps_what_was_used_last(redis: Client, clock: FakeClock, record: Record) -> None:
    ids = [f"{n:016x}" for n in range(3)]
    record.rows = {key_id: replace(KEY, key_id=key_id) for key_id in ids}
    switch = Switch(redis)
    keys = RedisKeys(switch, record.load, clock, capacity=2)
    for key_id in (ids[0], ids[1], ids[0], ids[2]):
        await keys.find(key_id)
    before = switch.calls
    await keys.find(ids[0])
    assert switch.calls == before
    await keys.find(ids[1])
    assert switch.calls > before


async def test_an_error_at_any_call_of_project_is_mended_by_the_next_find(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    for nth in (1, 2):
        await redis.execute("FLUSHALL")
        with pytest.raises(ServerError, match="injected"):
            await RedisKeys(Breaking(redis, nth), record.load, clock).find(KEY.key_id)
        assert await RedisKeys(redis, record.load, clock).find(KEY.key_id) == KEY
        assert 0 < await redis.execute("PTTL", f"key:{KEY.key_id}") <= 86_400_000


async def test_nothing_in_redis_is_the_secret_or_its_token(redis: Client, clock: FakeClock, record: Record) -> None:
    await RedisKeys(redis, record.load, clock).find(KEY.key_id)
    stored = await redis.execute("GET", f"key:{KEY.key_id}")
    assert KEY.secret_mac.encode() in stored
    assert b"hr_" not in stored


async def test_many_who_ask_for_a_cold_key_at_once_ask_the_record_once(
    redis: Client, clock: FakeClock, record: Record
) -> None:
    keys = RedisKeys(redis, record.load, clock)
    found = await asyncio.gather(*(keys.find(KEY.key_id) for _ in range(50)))
    assert record.asked == 1
    assert found == [KEY] * 50
