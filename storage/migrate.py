"""Brings a database to the present schema: numbered files, each once, in order, in its own transaction.

`NNNN_pre_words.sql` runs before new code is deployed, `NNNN_post_words.sql` after the last old process has gone; old
code must run on the schema that a pre-migration leaves. A file that was applied is never edited: its checksum is kept
and compared. Two processes may call this at once (advisory lock); an older release leaves newer migrations alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import asyncpg

from schemas.errors import HeadraceError, Unavailable
from storage.errors import FOREIGN, translate
from storage.queries import QUERIES

_NAME = re.compile(r"(?P<number>\d{4})_(?P<phase>pre|post)_[a-z0-9_]+\.sql")
_LOCK = 0x6865616472616365  # "headrace"
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
PRE, POST = "pre", "post"
_RELEASED_0001 = "e31c1347454e6223ed454919e82f1e7506f879da52dad21e4764c4f48b0fde62"
#: Files that were mended after their release and leave behind what they left before (0001 did not run on PostgreSQL 15,
#: nor for a user who may not make roles): SHA-256 of the text -> the checksum that databases know it by.
_MENDED = {
    "9a5f2674e4146726395e5538493972e9bca3a3ecd9d0282e4d5f86f1f7bfccd2": _RELEASED_0001,
}


class MigrationError(HeadraceError):
    """The files and the database disagree, or a migration failed; says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. phase: pre | post. checksum: SHA-256 of its text, the first released one where it was mended."""

    number: int
    phase: str
    name: str
    text: str

    @property
    def checksum(self) -> str:
        found = hashlib.sha256(self.text.encode()).hexdigest()
        return _MENDED.get(found, found)


def read_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The files by number. MigrationError for a stray name, a gap or a number used twice."""
    folder = folder or resources.files("storage") / "migrations"
    found = [_read(file) for file in folder.iterdir() if file.name.endswith(".sql")]
    found.sort(key=lambda item: item.number)
    numbers = [item.number for item in found]
    if numbers != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations must be numbered 1, 2, 3 ... without gaps; found {numbers}")
    return found


def pending(files: Sequence[Migration], applied: Mapping[int, str], phase: str | None) -> list[Migration]:
    """What is to be run. applied: number -> checksum. phase None = both. MigrationError when a file was edited."""
    for item in files:
        if applied.get(item.number, item.checksum) != item.checksum:
            raise MigrationError(
                f"{item.name} was changed after it was applied; restore it and put the change into a new migration"
            )
    return [item for item in files if item.number not in applied and phase in (None, item.phase)]


async def migrate(
    dsn: str,
    *,
    phase: str | None = None,
    only: int | None = None,
    files: Sequence[Migration] | None = None,
    timeout_s: float = 5.0,
) -> list[str]:
    """Run what is pending as the owner of the database; the names of what ran. phase: None = all, PRE or POST.
    only: the number of one. files: other than the package's own.

    Unavailable when the server does not answer, MigrationError when a migration fails (nothing of it stays)."""
    files = read_migrations() if files is None else files
    async with linked(dsn, timeout_s) as connection:
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            await connection.execute(_TABLE)
            todo = pending(files, await _applied(connection), phase)
            todo = [item for item in todo if only in (None, item.number)]
            for item in todo:
                await _apply(connection, item)
        except (OSError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"PostgreSQL went away while migrating; run it again: {error}") from error
    return [item.name for item in todo]


async def status(dsn: str, files: Sequence[Migration] | None = None) -> list[tuple[Migration, bool]]:
    """Every migration and whether it ran; looks, changes nothing. Unavailable, MigrationError for an edited file."""
    files = read_migrations() if files is None else files
    async with linked(dsn) as connection:
        known = await connection.fetchval(QUERIES["has_migrations"])
        applied = await _applied(connection) if known else {}
    waiting = pending(files, applied, None)
    return [(item, item not in waiting) for item in files]


@asynccontextmanager
async def linked(dsn: str, timeout_s: float = 5.0) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """One connection as whoever the dsn names, closed at the end. Unavailable, StoreRefused: see errors."""
    try:
        connection = await asyncpg.connect(dsn, timeout=timeout_s)
    except FOREIGN as error:
        raise translate(error, gone=True) from None
    except (ValueError, OverflowError):  # their words repeat a part of the address, which may be of its password
        raise Unavailable(
            "postgres.dsn cannot be read; it must be postgresql://user:password@host:port/database, and signs such as "
            "/ # ? @ in a password must be written as %2F %23 %3F %40"
        ) from None
    try:
        yield connection
    except FOREIGN as error:
        raise translate(error, gone=connection.is_closed()) from error
    finally:
        await connection.close(timeout=timeout_s)


def _read(file: Traversable) -> Migration:
    parts = _NAME.fullmatch(file.name)
    if parts is None:
        raise MigrationError(f"{file.name} is not named NNNN_pre_words.sql or NNNN_post_words.sql")
    return Migration(int(parts["number"]), parts["phase"], file.name, file.read_text())


async def _applied(connection: asyncpg.Connection[asyncpg.Record]) -> dict[int, str]:
    rows = await connection.fetch(QUERIES["applied_migrations"])
    return {row["number"]: row["checksum"] for row in rows}


async def _apply(connection: asyncpg.Connection[asyncpg.Record], item: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(item.text)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                item.number,
                item.name,
                item.checksum,
            )
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{item.name} failed and was rolled back: {error}") from error
