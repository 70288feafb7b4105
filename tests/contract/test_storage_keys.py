"""Promises of storage.ports.Keys: the twin and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.errors import HeadraceError
from storage.access import OPERATOR, tenant
from storage.ports import Keys, Store
from tests.storage_support import KEY

OTHER = replace(KEY, key_id="00000000000000bb", tenant="zeta", created_ms=500)


@pytest.fixture
def keys(store: Store) -> Keys:
    return store.keys


async def test_a_created_key_is_found_as_it_was(keys: Keys) -> None:
    assert await keys.create(OPERATOR, KEY)
    assert await keys.find(KEY.key_id) == KEY


async def test_an_unknown_key_is_none(keys: Keys) -> None:
    assert await keys.find("00000000000000ff") is None


async def test_a_taken_id_is_not_overwritten(keys: Keys) -> None:
    await keys.create(OPERATOR, KEY)
    assert not await keys.create(OPERATOR, replace(KEY, name="thief"))
    assert await keys.find(KEY.key_id) == KEY


async def test_keys_are_listed_by_tenant_oldest_first(keys: Keys) -> None:
    young = replace(KEY, key_id="0000000000000001", created_ms=2_000)
    for key in (OTHER, young, KEY):
        await keys.create(OPERATOR, key)
    assert list(await keys.list(OPERATOR)) == [KEY, young, OTHER]


async def test_a_tenant_sees_and_changes_only_its_own_keys(keys: Keys) -> None:
    await keys.create(OPERATOR, KEY)
    await keys.create(OPERATOR, OTHER)
    assert list(await keys.list(tenant("zeta"))) == [OTHER]
    assert await keys.revoke(tenant("zeta"), KEY.key_id, 9) is None
    assert await keys.rotate(tenant("zeta"), KEY.key_id, "cd" * 32, "k2", 9) is None
    assert await keys.find(KEY.key_id) == KEY


async def test_a_tenant_cannot_create_a_key_for_another(keys: Keys) -> None:
    with pytest.raises(HeadraceError):
        await keys.create(tenant("zeta"), KEY)
    assert await keys.find(KEY.key_id) is None


async def test_rotation_keeps_the_old_secret_for_the_overlap(keys: Keys) -> None:
    await keys.create(OPERATOR, KEY)
    rotated = await keys.rotate(OPERATOR, KEY.key_id, "cd" * 32, "k2", 5_000)
    expected = replace(
        KEY,
        secret_mac="cd" * 32,
        mac_kid="k2",
        previous_mac=KEY.secret_mac,
        previous_mac_kid="k1",
        previous_until_ms=5_000,
    )
    assert rotated == expected == await keys.find(KEY.key_id)


async def test_revocation_is_for_ever_and_the_first_time_counts(keys: Keys) -> None:
    await keys.create(OPERATOR, KEY)
    await keys.revoke(OPERATOR, KEY.key_id, 7)
    assert await keys.revoke(OPERATOR, KEY.key_id, 8) == replace(KEY, revoked_ms=7)


async def test_a_revoked_key_is_not_rotated(keys: Keys) -> None:
    await keys.create(OPERATOR, KEY)
    await keys.revoke(OPERATOR, KEY.key_id, 7)
    assert await keys.rotate(OPERATOR, KEY.key_id, "cd" * 32, "k2", 9) is None


async def test_a_name_that_looks_like_sql_is_a_name(keys: Keys) -> None:
    odd = replace(KEY, name="'; DROP TABLE keys; --")
    await keys.create(OPERATOR, odd)
    assert await keys.find(KEY.key_id) == odd
