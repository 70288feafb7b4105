"""`headrace init`, `migrate`, `doctor` and the refusals of `up`, on servers as an operator has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.conftest import short_folder
from tests.own_servers import TOKEN, OwnServers, Said, headrace, own_servers

KEY = re.compile(r"hr_[0-9a-f]{16}_[0-9a-f]{48}_[0-9a-f]{24}")


@pytest.fixture(scope="module")
def servers() -> Iterator[OwnServers]:
    with short_folder() as folder, own_servers(folder) as running:
        yield running


@pytest.fixture
def fresh(servers: OwnServers) -> OwnServers:
    """The same servers, with an empty Redis."""
    servers.redis.ask("FLUSHALL")
    return servers


def init(servers: OwnServers, folder: Path, *words: str, **more: str) -> Said:
    return headrace("init", *words, environment=servers.environment(**more), folder=folder)


def test_init_makes_everything_once_and_shows_the_keys_once(fresh: OwnServers, tmp_path: Path) -> None:
    before = init(fresh, tmp_path, "--check")
    assert before.code == 1 and "missing    role gate-service" in before.out, before
    first = init(fresh, tmp_path)
    assert first.code == 0, first.err
    assert "done       database gate" in first.out and "done       group ledger on {" in first.out
    assert len(set(KEY.findall(first.out))) == 2
    second = init(fresh, tmp_path)
    assert second.code == 0 and not KEY.findall(second.out)
    assert second.out.endswith("Everything was there; nothing was changed.\n") and "done " not in second.out
    assert init(fresh, tmp_path, "--check").code == 0


def test_the_service_can_pass_nothing_by(fresh: OwnServers, tmp_path: Path) -> None:
    assert init(fresh, tmp_path, database="narrow").code == 0
    rights = "rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb"
    asked = f"SELECT bool_or({rights}) FROM pg_roles WHERE rolname IN ('narrow-service', 'headrace_app')"
    assert fresh.postgres.sql(asked).strip() == "f"


def test_an_administrator_without_superuser_is_enough(fresh: OwnServers, tmp_path: Path) -> None:
    fresh.postgres.sql("CREATE ROLE manager LOGIN CREATEROLE CREATEDB PASSWORD 'managed'")
    done = init(fresh, tmp_path, database="managed", PG_ADMIN_USER="manager", PG_ADMIN_PASSWORD="managed")
    assert done.code == 0, done.err


def test_names_that_SQL_would_fold_or_break_are_taken_as_they_are(fresh: OwnServers, tmp_path: Path) -> None:
    odd = 'Odd "name"; DROP TABLE x --'
    environment = {**fresh.environment("odd"), "DATABASE_URL": odd_dsn(fresh, odd)}
    for said in ("done", "was there"):
        done = headrace("init", environment=environment, folder=tmp_path)
        assert done.code == 0 and re.search(rf"{said} +database {re.escape(odd)}\n", done.out), done
    assert headrace("init", "--check", environment=environment, folder=tmp_path).code == 0


def odd_dsn(fresh: OwnServers, name: str) -> str:
    """An address whose login and database both have this name."""
    place = urlsplit(fresh.environment("odd")["DATABASE_URL"]).netloc.rpartition("@")[2]
    return f"postgresql://{quote(name, safe='')}:own%2Fpass@{place}/{quote(name, safe='')}"


def test_without_an_administrator_role_and_database_must_be_there(fresh: OwnServers, tmp_path: Path) -> None:
    nobody = {"database": "given", "PG_ADMIN_USER": "", "PG_ADMIN_PASSWORD": ""}
    refused = init(fresh, tmp_path, **nobody)
    assert refused.code == 2 and "set PG_ADMIN_USER and PG_ADMIN_PASSWORD" in refused.err
    assert len(refused.err.splitlines()) == 1
    fresh.postgres.sql("""CREATE ROLE "given-service" LOGIN PASSWORD 'own/pass'""")
    fresh.postgres.sql("CREATE DATABASE given")
    refused = init(fresh, tmp_path, **nobody)
    assert refused.code == 2 and "GRANT headrace_app TO given-service" in refused.err
    fresh.postgres.sql('GRANT headrace_app TO "given-service"')
    refused = init(fresh, tmp_path, **nobody)
    assert refused.code == 2 and "given-service may not make tables here" in refused.err
    fresh.postgres.sql('ALTER DATABASE given OWNER TO "given-service"')
    done = init(fresh, tmp_path, **nobody)
    assert done.code == 0, done.err


def test_the_internal_key_is_recorded_and_not_shown(fresh: OwnServers, tmp_path: Path) -> None:
    done = init(fresh, tmp_path, database="internal", INTERNAL_API_KEY=TOKEN)
    assert done.code == 0, done.err
    assert "done       internal key" in done.out and "first admin key" not in done.out
    assert TOKEN not in done.out and len(KEY.findall(done.out)) == 1
    again = init(fresh, tmp_path, "--json", database="internal", INTERNAL_API_KEY=TOKEN)
    assert all(row["there"] and not row["token"] for row in json.loads(again.out)["data"])


def test_migrate_tells_what_is_pending_and_applies_it(fresh: OwnServers, tmp_path: Path) -> None:
    fresh.postgres.sql("""CREATE ROLE "steps-service" LOGIN CREATEROLE PASSWORD 'own/pass'""")
    fresh.postgres.sql('CREATE DATABASE steps OWNER "steps-service"')
    fresh.postgres.sql('GRANT headrace_app TO "steps-service"')
    environment = fresh.environment("steps")
    before = headrace("migrate", "status", environment=environment, folder=tmp_path)
    assert before.code == 1 and re.search(r"0001_pre_first_shape.sql +pre +pending", before.out), before
    done = headrace("migrate", "up", environment=environment, folder=tmp_path)
    assert done.code == 0 and "applied 0001_pre_first_shape.sql" in done.out, done.err
    assert headrace("migrate", "status", environment=environment, folder=tmp_path).code == 0
    assert headrace("migrate", "up", environment=environment, folder=tmp_path).out == "Nothing was pending.\n"


def test_up_says_every_problem_of_the_servers_at_once_with_its_remedy(fresh: OwnServers, tmp_path: Path) -> None:
    fresh.redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    fresh.redis.ask("CONFIG", "SET", "appendonly", "no")
    try:
        refused = headrace("up", "--port", "0", environment=fresh.environment("nowhere"), folder=tmp_path)
    finally:
        fresh.redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        fresh.redis.ask("CONFIG", "SET", "appendonly", "yes")
    assert refused.code == 2
    said = refused.err
    assert "maxmemory-policy is allkeys-lru" in said and "CONFIG SET maxmemory-policy noeviction" in said
    assert "appendonly is off" in said and "CONFIG SET appendonly yes" in said
    assert "PostgreSQL cannot serve" in said and "`headrace init`" in said
    assert {path.name for path in (tmp_path / ".headrace").iterdir()}.isdisjoint({"valkey", "postgres"})


def test_a_login_that_was_there_with_another_password_is_said_to_be_that(fresh: OwnServers, tmp_path: Path) -> None:
    fresh.postgres.sql("""CREATE ROLE "other-service" LOGIN PASSWORD 'another'""")
    refused = init(fresh, tmp_path, database="other")
    assert refused.code == 2 and "correct its password" in refused.err and len(refused.err.splitlines()) == 1


def test_init_refuses_an_unsafe_redis_before_it_makes_anything(fresh: OwnServers, tmp_path: Path) -> None:
    fresh.redis.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    try:
        refused = init(fresh, tmp_path, database="untouched")
    finally:
        fresh.redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert refused.code == 2 and "noeviction" in refused.err and len(refused.err.splitlines()) == 1
    assert fresh.postgres.sql("SELECT count(*) FROM pg_database WHERE datname = 'untouched'").strip() == "0"


def test_doctor_knows_own_servers(fresh: OwnServers, tmp_path: Path) -> None:
    environment = fresh.environment("examined", JWT_SECRET_KEY="not used")
    before = headrace("doctor", "--json", environment=environment, folder=tmp_path)
    found = json.loads(before.out)["data"]
    assert any(row["verdict"] == "bad" and "headrace init" in row["remedy"] for row in found), found
    assert any(row["detail"] == "JWT_SECRET_KEY is not used" for row in found)
    assert headrace("init", environment=environment, folder=tmp_path).code == 0
    after = json.loads(headrace("doctor", "--json", environment=environment, folder=tmp_path).out)["data"]
    assert next(row for row in after if row["name"] == "postgres")["detail"].startswith("PostgreSQL 15, schema current")
