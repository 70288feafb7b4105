"""The way from an older database to the present one, and that schema.sql tells the truth about it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from console.embedded.postgres import EmbeddedPostgres
from console.embedded.postgres_files import bundled
from schemas.records import (
    DeploymentRecord,
    EndpointRecord,
    FactRecord,
    KeyRecord,
    ModelRecord,
    ReplicaRecord,
    RequestRecord,
)
from storage.access import tenant
from storage.deployments import PostgresDeployments
from storage.migrate import POST, PRE, Migration, MigrationError, migrate, pending, read_migrations
from storage.pool import open_pool
from storage.requests import PostgresRequests
from storage.rows import Table
from tests.storage_support import REQUEST

STORAGE = Path(__file__).parents[2] / "storage"
TABLES: dict[str, type[Any]] = {
    "keys": KeyRecord,
    "deployments": DeploymentRecord,
    "replicas": ReplicaRecord,
    "models": ModelRecord,
    "endpoints": EndpointRecord,
    "requests": RequestRecord,
    "facts": FactRecord,
}
OLD_DEPLOYMENT = """
INSERT INTO deployments (deployment, command_id, name, target, pool, state, reason, url, upstream_model, credential,
    slots, weight, private, command, pid, created_ms, updated_ms)
VALUES ('old', 'c1', 'small', 'local', 'small', 'ready', '', '', '', '', 8, 1, false, '{engine}', 7, 1, 1)
"""
FILES = [
    Migration(1, PRE, "0001_pre_a.sql", "CREATE TABLE a (x integer)"),
    Migration(2, POST, "0002_post_b.sql", "ALTER TABLE a ADD y integer"),
    Migration(3, PRE, "0003_pre_c.sql", "CREATE TABLE c (x integer)"),
]


@pytest.fixture
def other(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A second empty database."""
    postgres_server.sql("CREATE DATABASE other")
    yield postgres_server.dsn_of("other")
    postgres_server.sql("DROP DATABASE other WITH (FORCE)")


async def _one(dsn: str, statement: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _dump(dsn: str) -> str:
    """The schema as pg_dump writes it, without its random restrict lines and our version table."""
    command = [str(bundled() / "bin" / "pg_dump"), "--schema-only", "--exclude-table=schema_migrations", dsn]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


async def test_schema_sql_equals_all_migrations(postgres: str, other: str) -> None:
    await migrate(postgres)
    connection = await asyncpg.connect(other)
    await connection.execute((STORAGE / "schema.sql").read_text())
    await connection.close()
    migrated = _dump(postgres)
    assert "CREATE TABLE public.requests" in migrated and "CREATE POLICY of_tenant" in migrated
    assert migrated == _dump(other)


async def test_every_table_has_the_columns_of_its_record(postgres: str) -> None:
    await migrate(postgres)
    connection = await asyncpg.connect(postgres)
    for table, record in TABLES.items():
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position", table
        )
        assert {row["column_name"] for row in rows} == set(Table(record).columns)
    await connection.close()


async def test_no_column_could_hold_what_a_client_said_but_the_sealed_ones(postgres: str) -> None:
    await migrate(postgres)
    connection = await asyncpg.connect(postgres)
    rows = await connection.fetch(
        "SELECT column_name AS name, data_type AS type FROM information_schema.columns WHERE table_schema = 'public'"
    )
    await connection.close()
    suspicious = re.compile(r"prompt|message|content|body|input|output|answer|text|payload|completion")
    assert {row["name"] for row in rows if suspicious.search(row["name"])} == {
        "prompt_tokens",
        "completion_tokens",
        "body",  # of kept responses
    }
    assert {row["name"] for row in rows if row["type"] in ("json", "jsonb", "bytea")} == {
        "verdicts",
        "attempts",
        "detail",
        *("frames", "body"),  # of kept answers: sealed under the key ring
    }


async def test_migrating_twice_runs_nothing_the_second_time(postgres: str) -> None:
    assert await migrate(postgres) == [item.name for item in read_migrations()]
    assert await migrate(postgres) == []


async def test_a_row_from_before_replicas_is_one_engine_that_always_restarts(postgres: str) -> None:
    before = [item for item in read_migrations() if item.number < 3]
    await migrate(postgres, files=before)
    connection = await asyncpg.connect(postgres)
    await connection.execute(OLD_DEPLOYMENT)
    await migrate(postgres)
    await connection.execute(OLD_DEPLOYMENT.replace("'old'", "'older code'").replace("'c1'", "'c2'"))  # still writes
    await connection.close()
    pool = await open_pool(postgres)
    found = await PostgresDeployments(pool).list()
    await pool.close()
    assert [(row.deployment, row.replicas, row.restart, row.drain) for row in found] == [
        ("old", 1, "always", True),
        ("older code", 1, "always", True),
    ]


async def test_several_processes_at_once_run_each_migration_once(postgres: str) -> None:
    ran = await asyncio.gather(*(migrate(postgres, timeout_s=30) for _ in range(4)))
    assert sorted(name for names in ran for name in names) == [item.name for item in read_migrations()]


async def test_pre_runs_before_the_new_code_and_post_after(postgres: str) -> None:
    assert await migrate(postgres, phase=PRE, files=FILES) == ["0001_pre_a.sql", "0003_pre_c.sql"]
    assert await migrate(postgres, phase=POST, files=FILES) == ["0002_post_b.sql"]


async def test_a_failing_migration_leaves_nothing_and_keeps_what_ran_before(postgres: str) -> None:
    broken = Migration(2, PRE, "0002_pre_broken.sql", "CREATE TABLE b (x integer); SELECT 1/0")
    with pytest.raises(MigrationError, match="0002_pre_broken"):
        await migrate(postgres, files=[FILES[0], broken])
    assert await _one(postgres, "SELECT to_regclass('a') IS NOT NULL AND to_regclass('b') IS NULL")
    assert await _one(postgres, "SELECT count(*) FROM schema_migrations") == 1


async def test_an_older_release_leaves_newer_migrations_alone(postgres: str) -> None:
    await migrate(postgres, files=FILES)
    assert await migrate(postgres, files=FILES[:1]) == []


def test_a_file_that_was_edited_after_it_ran_is_refused() -> None:
    applied = {1: FILES[0].checksum}
    with pytest.raises(MigrationError, match="changed after it was applied"):
        pending([replace(FILES[0], text="CREATE TABLE a (x bigint)")], applied, None)


async def test_a_mended_file_goes_by_the_checksum_of_its_release(postgres: str) -> None:
    await migrate(postgres)
    released = "e31c1347454e6223ed454919e82f1e7506f879da52dad21e4764c4f48b0fde62"  # in databases of version 0.1.0
    assert await _one(postgres, "SELECT checksum FROM schema_migrations WHERE number = 1") == released


@pytest.mark.parametrize(
    "names", [["1_pre_a.sql"], ["0001_during_a.sql"], ["0001_pre_a.sql", "0003_pre_b.sql"], ["0002_pre_a.sql"]]
)
def test_stray_names_and_gaps_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError):
        read_migrations(tmp_path)


async def test_an_owner_who_may_not_make_roles_can_migrate_when_the_role_is_there(
    spare_postgres: EmbeddedPostgres,
) -> None:
    spare_postgres.sql("CREATE ROLE headrace_app NOLOGIN")
    spare_postgres.sql("CREATE ROLE house LOGIN PASSWORD 'only-for-tests' IN ROLE headrace_app")
    spare_postgres.sql("CREATE DATABASE house OWNER house")
    await migrate(f"postgresql://house:only-for-tests@127.0.0.1:{spare_postgres.port}/house")


async def test_an_owner_who_is_no_superuser_can_migrate_and_serve(spare_postgres: EmbeddedPostgres) -> None:
    spare_postgres.sql("CREATE ROLE house LOGIN CREATEROLE PASSWORD 'only-for-tests'")
    spare_postgres.sql("CREATE DATABASE house OWNER house")
    spare_postgres.sql("REVOKE TEMPORARY ON DATABASE house FROM PUBLIC")
    dsn = f"postgresql://house:only-for-tests@127.0.0.1:{spare_postgres.port}/house"
    await migrate(dsn)
    pool = await open_pool(dsn)
    assert await PostgresRequests(pool).write([], [REQUEST]) == {REQUEST.run}
    assert await PostgresRequests(pool).find(tenant("zeta"), REQUEST.run) is None
    await pool.close()
    assert await _one(dsn, "SELECT count(*) FROM requests") == 0  # the owner, too, must say on whose behalf
