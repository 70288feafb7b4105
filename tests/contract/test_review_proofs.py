"""What somebody without the key ring writes into Redis makes nobody an administrator and leads nowhere."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from runtime.client import Client
from schemas.records import ADMIN, EndpointRecord, KeyRecord
from state.catalog import ENDPOINTS
from state.shared import Shared
from tests.run_support import RING
from tests.state_support import FakeClock

KEY = KeyRecord(key_id="00000000000000aa", tenant="acme", name="app", secret_mac="ab" * 32, mac_kid="k1")
ADMIN_KEY = replace(KEY, scopes=(ADMIN,), tenant="other")
OURS = EndpointRecord(endpoint="e1", deployment="d1", pool="gpu", model="m", url="http://127.0.0.1:1/v1")
THEIRS = replace(OURS, url="https://attacker.example/v1")
PLACE = f"key:{KEY.key_id}"


def _shared(redis: Client) -> Shared:
    async def load(key_id: str) -> KeyRecord | None:
        return KEY if key_id == KEY.key_id else None

    return Shared.over(redis, load, FakeClock(), RING)


async def test_forged_key_record_is_not_believed_and_is_replaced(redis: Client) -> None:
    await redis.execute("SET", PLACE, msgspec.json.encode(ADMIN_KEY), "PX", 86_400_000)
    assert await _shared(redis).keys.find(KEY.key_id) == KEY
    assert msgspec.json.encode(KEY) in await redis.execute("GET", PLACE)
    assert await _shared(redis).keys.find(KEY.key_id) == KEY


async def test_true_record_of_one_key_is_nothing_under_another(redis: Client) -> None:
    await _shared(redis).keys.find(KEY.key_id)
    moved = await redis.execute("GET", PLACE)
    await redis.execute("SET", "key:00000000000000bb", moved, "PX", 86_400_000)
    assert await _shared(redis).keys.find("00000000000000bb") is None


async def test_forged_endpoint_is_left_out(redis: Client) -> None:
    await _shared(redis).catalog.publish([], [OURS])
    await redis.execute("HSET", ENDPOINTS, "e2", msgspec.json.encode(replace(THEIRS, endpoint="e2")))
    assert list(await _shared(redis).catalog.endpoints("gpu")) == [OURS]
    await redis.execute("HSET", ENDPOINTS, "e1", msgspec.json.encode(THEIRS))
    assert list(await _shared(redis).catalog.endpoints("gpu")) == []
