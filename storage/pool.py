"""Connections to PostgreSQL, as role headrace_app, one transaction at a time on somebody's behalf.

- Opening connects to nothing: a process starts while PostgreSQL is away, and connects when it first needs it.
- Waiting is short everywhere (connect, acquire, statement), because whoever waits holds work that could wait better
  elsewhere. A connection that missed its time is dropped, not asked again.
- Every error leaves as Unavailable or StoreRefused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import msgspec

from storage.access import Access
from storage.errors import FOREIGN, StoreRefused, translate
from storage.queries import QUERIES

ROLE = "headrace_app"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_JSONB = b"\x01"  # the version byte of jsonb on the wire


class Transaction:
    """Statements of queries.sql inside one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        """All rows of a named query."""
        return await self._connection.fetch(QUERIES[query], *values)

    async def row(self, query: str, *values: object) -> asyncpg.Record | None:
        """Its first row, or None."""
        return await self._connection.fetchrow(QUERIES[query], *values)

    async def run(self, query: str, *values: object) -> None:
        """A named query whose rows nobody wants."""
        await self._connection.fetch(QUERIES[query], *values)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Rows into a staging table by COPY. StoreRefused when a value does not fit its column."""
        try:
            await self._connection.copy_records_to_table(table, records=rows, columns=columns)
        except (TypeError, ValueError, OverflowError) as error:
            raise StoreRefused(f"a row for {table} does not fit: {error}") from error


class Pool:
    """A few connections to one database, shared by a process. Make it with open_pool()."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], acquire_s: float) -> None:
        self._pool, self._acquire_s = pool, acquire_s

    @asynccontextmanager
    async def transaction(self, access: Access) -> AsyncIterator[Transaction]:
        """All or nothing, seeing only what `access` may. Unavailable (it may or may not have been applied, when raised
        at the end), StoreRefused."""
        try:
            connection = await self._pool.acquire(timeout=self._acquire_s)
        except FOREIGN as error:
            raise translate(error, gone=True) from None
        try:
            async with _ending(connection):
                await connection.fetch(QUERIES["enter"], access.name, "operator" if access.operator else "")
                yield Transaction(connection)
        except FOREIGN as error:
            raise translate(error, gone=_is_gone(connection)) from error
        finally:
            await self._pool.release(connection)

    async def ready(self) -> None:
        """Returns when PostgreSQL answers and the schema is there; Unavailable when not."""
        async with self.transaction(Access("", operator=True)) as work:
            await work.run("ready")

    async def close(self, grace_s: float = 2.0) -> None:
        """Let running transactions end, for at most grace_s seconds, then cut them."""
        try:
            await asyncio.wait_for(self._pool.close(), grace_s)
        except TimeoutError:
            self._pool.terminate()


async def open_pool(
    dsn: str,
    *,
    size: int = 4,
    connect_s: float = 2.0,
    statement_s: float = 10.0,
    acquire_s: float = 3.0,
    role: str = ROLE,
) -> Pool:
    """A pool of up to `size` connections; connects lazily. dsn: postgresql://user:password@host:port/database.

    ValueError when the dsn is not one."""
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise ValueError("postgres.dsn must read postgresql://user:password@host:port/database")
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        timeout=connect_s,
        command_timeout=statement_s,
        max_inactive_connection_lifetime=300.0,
        server_settings={"role": role, "application_name": "headrace"},
        init=_set_codecs,
        reset=_keep,
    )
    await pool
    return Pool(pool, acquire_s)


@asynccontextmanager
async def _ending(connection: Connection) -> AsyncIterator[None]:
    """Commit, or roll back. A server that stopped answering, or a cancelled caller, is not asked to roll back: the
    connection is cut, which does the same and waits for nobody."""
    work = connection.transaction()
    try:
        await work.start()
        yield
        await work.commit()
    except (OSError, TimeoutError, asyncio.CancelledError, GeneratorExit):
        if not _is_gone(connection):
            connection.terminate()
        raise
    except BaseException:
        if not _is_gone(connection):
            await work.rollback()
        raise


def _is_gone(connection: Connection) -> bool:
    """Closed, or taken from us by the pool, which it does at once when the server hangs up."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


async def _set_codecs(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """jsonb as Python values, in the binary form that COPY needs."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )


def _encode_jsonb(value: Any) -> bytes:
    return _JSONB + msgspec.json.encode(value)


def _decode_jsonb(raw: bytes) -> Any:
    return msgspec.json.decode(raw[1:])


async def _keep(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Nothing to reset between two uses: all that we set is local to its transaction. Saves a round trip."""
