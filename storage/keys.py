"""API keys in PostgreSQL. Implements ports.Keys."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import KeyRecord
from storage.access import OPERATOR, Access
from storage.pool import Pool
from storage.rows import Table

KEYS = Table(KeyRecord)


class PostgresKeys:
    """Table keys, and tenants beside it: a tenant exists from its first key on."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, access: Access, record: KeyRecord) -> bool:
        async with self._pool.transaction(access) as work:
            await work.run("create_tenant", record.tenant, record.created_ms)
            return await work.row("create_key", *KEYS.values(record)) is not None

    async def find(self, key_id: str) -> KeyRecord | None:
        async with self._pool.transaction(OPERATOR) as work:
            row = await work.row("find_key", key_id)
        return KEYS.build(row) if row else None

    async def list(self, access: Access) -> Sequence[KeyRecord]:
        async with self._pool.transaction(access) as work:
            return [KEYS.build(row) for row in await work.rows("list_keys", access.only)]

    async def rotate(
        self, access: Access, key_id: str, secret_mac: str, mac_kid: str, overlap_until_ms: int
    ) -> KeyRecord | None:
        async with self._pool.transaction(access) as work:
            row = await work.row("rotate_key", key_id, secret_mac, mac_kid, overlap_until_ms)
        return KEYS.build(row) if row else None

    async def revoke(self, access: Access, key_id: str, at_ms: int) -> KeyRecord | None:
        async with self._pool.transaction(access) as work:
            row = await work.row("revoke_key", key_id, at_ms)
        return KEYS.build(row) if row else None
