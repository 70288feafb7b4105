"""The pool's promises: row-level security, short waits, our errors; and that SQL stays in queries.sql."""

from __future__ import annotations

import ast
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from console.embedded.postgres import EmbeddedPostgres
from schemas.errors import Unavailable
from storage.access import OPERATOR, Access, tenant
from storage.errors import StoreRefused
from storage.migrate import migrate
from storage.pool import Pool, open_pool
from storage.queries import QUERIES, parse
from storage.requests import PostgresRequests
from tests.storage_support import REQUEST, fact, migrated_pool, request

STORAGE = Path(__file__).parents[2] / "storage"
TENANT_TABLES = ["archives", "facts", "keys", "requests", "tenants"]


@pytest.fixture
async def pool(postgres: str) -> AsyncIterator[Pool]:
    pool = await migrated_pool(postgres)
    yield pool
    await pool.close()


@pytest.fixture
async def bare(postgres: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection in the service's role that says nobody's name."""
    await migrate(postgres)
    connection = await asyncpg.connect(postgres, server_settings={"role": "headrace_app"})
    yield connection
    await connection.close()


async def test_reads_without_a_tenant_find_nothing(pool: Pool, bare: asyncpg.Connection[asyncpg.Record]) -> None:
    await PostgresRequests(pool).write([fact(REQUEST)], [REQUEST, request(9, tenant="")])
    for table in TENANT_TABLES:
        assert await bare.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_writes_without_a_tenant_are_refused(bare: asyncpg.Connection[asyncpg.Record]) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await bare.execute("INSERT INTO tenants (tenant, created_ms) VALUES ('acme', 1)")


async def test_a_tenant_cannot_write_rows_of_another(pool: Pool) -> None:
    with pytest.raises(StoreRefused):
        async with pool.transaction(tenant("zeta")) as work:
            await work.run("create_tenant", "acme", 1)


async def test_nobody_is_not_the_tenant_of_unproven_callers(pool: Pool) -> None:
    requests = PostgresRequests(pool)
    await requests.write([], [request(9, tenant="")])
    assert await requests.find(Access(""), request(9).run) is None
    assert await requests.find(OPERATOR, request(9).run) is not None


def test_a_tenant_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        tenant("")


async def test_the_services_role_cannot_step_around_row_security(bare: asyncpg.Connection[asyncpg.Record]) -> None:
    role = await bare.fetchrow("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
    assert role is not None and not role["rolsuper"] and not role["rolbypassrls"]
    forced = await bare.fetch("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity ORDER BY 1")
    assert [row["relname"] for row in forced] == TENANT_TABLES


async def test_the_record_can_only_be_added_to(bare: asyncpg.Connection[asyncpg.Record]) -> None:
    for statement in ("DELETE FROM requests", "UPDATE requests SET cost_micros = 0", "DELETE FROM facts"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await bare.execute(statement)


async def test_a_scope_ends_with_its_transaction(postgres: str) -> None:
    pool = await migrated_pool(postgres, size=1)
    async with pool.transaction(OPERATOR) as work:
        await work.run("create_tenant", "acme", 1)
    async with pool.transaction(tenant("zeta")) as work:
        assert await work.rows("list_keys", None) == []
    await pool.close()


async def test_an_error_inside_rolls_everything_back(pool: Pool) -> None:
    requests = PostgresRequests(pool)
    with pytest.raises(StoreRefused):
        await requests.write([fact(REQUEST)], [REQUEST, request(2, model="a\x00b")])
    assert await requests.find(OPERATOR, REQUEST.run) is None
    assert await requests.write([fact(REQUEST)], [REQUEST]) == {REQUEST.run}


async def test_a_value_that_does_not_fit_is_our_error_not_an_outage(pool: Pool) -> None:
    with pytest.raises(StoreRefused):
        await PostgresRequests(pool).write([], [request(1, cost_micros=2**70)])
    with pytest.raises(StoreRefused):
        async with pool.transaction(OPERATOR) as work:
            await work.run("create_tenant", "acme", 2**70)


async def test_a_server_that_is_not_there_is_unavailable(free_port: Callable[[], int]) -> None:
    pool = await open_pool(f"postgresql://headrace:x@127.0.0.1:{free_port()}/headrace")
    with pytest.raises(Unavailable):
        await pool.ready()
    await pool.close()


async def test_a_database_that_was_not_migrated_is_unavailable(spare_postgres: EmbeddedPostgres) -> None:
    pool = await open_pool(spare_postgres.dsn)
    with pytest.raises(Unavailable):
        await pool.ready()
    await migrate(spare_postgres.dsn)
    await pool.ready()
    await pool.close()


async def test_an_unreadable_dsn_says_so() -> None:
    with pytest.raises(ValueError, match=r"postgres\.dsn"):
        await open_pool("mysql://nowhere")


async def test_a_server_that_stopped_answering_is_unavailable_and_serves_again(
    spare_postgres: EmbeddedPostgres,
) -> None:
    pool = await migrated_pool(spare_postgres.dsn, connect_s=0.5, statement_s=0.5, acquire_s=1.0)
    requests = PostgresRequests(pool)
    await requests.write([], [request(1)])
    group = _backends(spare_postgres.pid)
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await requests.write([], [request(2)])
    finally:
        for pid in group:
            os.kill(pid, signal.SIGCONT)
    assert await requests.write([], [request(2)]) == {request(2).run}
    await pool.close()


async def test_a_killed_server_is_unavailable_and_serves_again_after_its_restart(
    spare_postgres: EmbeddedPostgres,
) -> None:
    pool = await migrated_pool(spare_postgres.dsn)
    requests = PostgresRequests(pool)
    await requests.write([], [request(1)])
    spare_postgres.stop()
    with pytest.raises(Unavailable):
        await requests.write([], [request(2)])
    spare_postgres.start()
    moved = await open_pool(spare_postgres.dsn)
    assert await PostgresRequests(moved).write([], [request(1), request(2)]) == {request(2).run}
    await moved.close()
    await pool.close()


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    source = "".join(path.read_text() for path in STORAGE.glob("*.py"))
    used = set(re.findall(r'work\.(?:rows|row|run)\(\s*"(\w+)"', source)) | set(
        re.findall(r'QUERIES\["(\w+)"\]', source)
    )
    assert used == set(QUERIES)


def test_sql_is_never_put_together_from_pieces() -> None:
    words = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|CREATE|ALTER|GRANT)\b")
    for path in STORAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            pieces = isinstance(node, ast.JoinedStr | ast.BinOp | ast.Call) and [
                part.value
                for part in ast.walk(node.func if isinstance(node, ast.Call) else node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            assert not any(words.search(piece) for piece in pieces or []), f"{path.name}:{node.lineno}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["-- a: x\nSELECT 1", "-- a: x\nSELECT 1;\n-- a: y\nSELECT 2;"])
def test_a_malformed_query_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a comes twice or has no semicolon"):
        parse(text)


def _backends(postmaster: int) -> list[int]:
    """The server's processes, the postmaster first, so that it starts no new ones."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]
