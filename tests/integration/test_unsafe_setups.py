"""Every set-up that could lose, show or mix up something stops the start: one line that says what to do, code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import short_folder
from tests.own_servers import OwnServers, headrace, own_servers


@pytest.fixture(scope="module")
def servers() -> Iterator[OwnServers]:
    """Two servers on which `headrace init` was run."""
    with short_folder() as folder, own_servers(folder) as running:
        made = headrace("init", environment=running.environment(), folder=folder)
        assert made.code == 0, made.err
        yield running


Act = Callable[[OwnServers], object]


def nothing(servers: OwnServers) -> None:
    """The environment alone is wrong."""


def redis(*words: str) -> Act:
    return lambda servers: servers.redis.ask(*words)


def sql(text: str) -> Act:
    return lambda servers: servers.postgres.sql(text)


@dataclass(frozen=True)
class Case:
    """One unsafe set-up. changes: variables, `{redis}` and `{postgres}` are the ports. said: what the line holds."""

    name: str
    said: tuple[str, ...]
    spoil: Act = nothing
    mend: Act = nothing
    changes: dict[str, str] = field(default_factory=dict)


POLICIES = ("allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random")
SAFE_POLICY = redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
CASES = [
    *(
        Case(
            policy,
            (f"maxmemory-policy is {policy}", "CONFIG SET maxmemory-policy noeviction"),
            redis("CONFIG", "SET", "maxmemory-policy", policy),
            SAFE_POLICY,
        )
        for policy in (*POLICIES, "volatile-ttl")
    ),
    Case(
        "no AOF",
        ("appendonly is off", "CONFIG SET appendonly yes"),
        redis("CONFIG", "SET", "appendonly", "no"),
        redis("CONFIG", "SET", "appendonly", "yes"),
    ),
    Case(
        "a replica",
        ("Redis: the server is a replica", "name the primary"),
        redis("REPLICAOF", "127.0.0.1", "1"),
        redis("REPLICAOF", "NO", "ONE"),
    ),
    Case(
        "a user without rights",
        ("redis.url", "NOPERM", "headrace topology acl"),
        redis("ACL", "SETUSER", "poor", "on", ">poor-password", "+info", "~*"),
        changes={"REDIS_URL": "redis://poor:poor-password@127.0.0.1:{redis}/0"},
    ),
    Case(
        "a wrong password of Redis",
        ("Redis at 127.0.0.1", "WRONGPASS", "check REDIS_URL"),
        changes={"REDIS_URL": "redis://:another-password@127.0.0.1:{redis}/0"},
    ),
    Case("no Redis", ("Redis at 127.0.0.1:1", "REDIS_URL"), changes={"REDIS_URL": "redis://:some-password@127.0.0.1:1"}),
    Case("a Redis elsewhere without TLS", ("redis.url: ", "rediss://"), changes={"REDIS_URL": "redis://:own-pass@10.9.9.9"}),
    Case(
        "a role that passes row-level security by",
        ("headrace_app passes row-level security by", "ALTER ROLE headrace_app NOSUPERUSER NOBYPASSRLS"),
        sql("ALTER ROLE headrace_app BYPASSRLS"),
        sql("ALTER ROLE headrace_app NOBYPASSRLS"),
    ),
    Case(
        "a login that may not take the role",
        ("may not work as headrace_app", "GRANT headrace_app TO"),
        sql('REVOKE headrace_app FROM "gate-service"'),
        sql('GRANT headrace_app TO "gate-service"'),
    ),
    Case(
        "a schema of an older version",
        ("the schema is not current", "headrace migrate up"),
        sql('CREATE DATABASE empty OWNER "gate-service"'),
        sql("DROP DATABASE empty"),
        {"DATABASE_URL": "postgresql://gate-service:own%2Fpass@127.0.0.1:{postgres}/empty"},
    ),
    Case(
        "a wrong password of PostgreSQL",
        ("PostgreSQL", "correct DATABASE_URL"),
        changes={"DATABASE_URL": "postgresql://gate-service:another@127.0.0.1:{postgres}/gate"},
    ),
    Case(
        "no database",
        ("PostgreSQL", "headrace init"),
        changes={"DATABASE_URL": "postgresql://gate-service:own%2Fpass@127.0.0.1:{postgres}/none"},
    ),
    Case("no PostgreSQL", ("PostgreSQL does not answer", "check postgres.dsn"), changes={"DATABASE_URL": "postgresql://a:own-pass@127.0.0.1:1/a"}),
    Case("a ring of zeros", ("SECRET_ENCRYPTION_KEY", "not random"), changes={"SECRET_ENCRYPTION_KEY": "A" * 43 + "="}),
    Case("no ring", ("SECRET_ENCRYPTION_KEY", "is not set"), changes={"SECRET_ENCRYPTION_KEY": ""}),
    Case("a password of everybody", ("postgres.dsn", "anybody would try first"),
         changes={"DATABASE_URL": "postgresql://postgres:postgres@127.0.0.1:{postgres}/gate"}),
]  # fmt: skip


@contextmanager
def spoiled(case: Case, servers: OwnServers) -> Iterator[dict[str, str]]:
    """The environment of the set-up; mended afterwards."""
    ports = {"redis": servers.redis.port, "postgres": servers.postgres.port}
    case.spoil(servers)
    try:
        yield servers.environment(**{name: value.format(**ports) for name, value in case.changes.items()})
    finally:
        case.mend(servers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_stops_the_start_with_one_line_that_says_what_to_do(case: Case, servers: OwnServers, tmp_path: Path) -> None:
    with spoiled(case, servers) as environment:
        refused = headrace("up", "--port", "0", environment=environment, folder=tmp_path)
    assert refused.code == 2 and all(words in refused.err for words in case.said), refused
    assert len(refused.err.splitlines()) == 1 and "Traceback" not in refused.err, refused.err


def test_a_data_folder_that_is_a_file_is_said_to_be_one(servers: OwnServers, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = headrace("up", "--data", "file", environment=servers.environment(), folder=tmp_path)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and "file" in refused.err, refused
