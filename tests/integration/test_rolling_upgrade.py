"""Old processes go on while the new schema is there: their statements still hold after every `pre` migration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from storage.migrate import PRE, migrate
from storage.queries import parse

GOLDEN = Path(__file__).parents[1] / "golden"
OLD = {path.parent.name.removeprefix("data-"): parse(path.read_text()) for path in GOLDEN.glob("data-*/queries.sql")}
STATEMENTS = [(version, name) for version, found in OLD.items() for name in found]


@pytest.fixture
async def ready(postgres: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database as `headrace migrate up` leaves it, with the temporary tables of the statements."""
    await migrate(postgres, phase=PRE)
    connection = await asyncpg.connect(postgres)
    try:
        yield connection
    finally:
        await connection.close()


def test_the_statements_of_every_earlier_version_are_kept() -> None:
    assert {path.name for path in GOLDEN.glob("data-*")} == {f"data-{version}" for version in OLD}


async def test_every_old_statement_can_be_prepared(ready: asyncpg.Connection[asyncpg.Record]) -> None:
    for version, name in STATEMENTS:
        statement = OLD[version][name]
        if name.startswith("stage_"):
            await ready.execute(statement)
        assert await ready.prepare(statement), (version, name)


async def test_a_row_that_an_old_process_writes_has_a_value_for_every_column(
    ready: asyncpg.Connection[asyncpg.Record],
) -> None:
    """What an INSERT of an earlier version does not name must have a default, or may be empty."""
    for version, name in STATEMENTS:
        statement = OLD[version][name].partition("\n")[2]
        if statement.startswith("INSERT INTO "):
            table, _, rest = statement.removeprefix("INSERT INTO ").partition(" (")
            named = {column.strip() for column in rest.partition(")")[0].split(",")}
            assert await needed(ready, table.strip()) <= named, (version, name)


async def needed(connection: asyncpg.Connection[asyncpg.Record], table: str) -> set[str]:
    """Columns of a table that a row cannot do without."""
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_name = $1 AND is_nullable = 'NO' AND column_default IS NULL AND table_schema = 'public'",
        table,
    )
    return {row["column_name"] for row in rows}
