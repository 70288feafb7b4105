"""The servers that contract suites run on, by kind, one of each a session, started when first asked for.

    valkey, postgres18      the embedded ones, from wheels, always
    redis, postgres15       Debian's redis-server 7.0 and PostgreSQL 15, the oldest that are promised

HEADRACE_TEST_REDIS_SERVER (a program) and HEADRACE_TEST_POSTGRES_BIN (a folder) name others. One that is missing skips
its tests at home and fails them on CI, where .ci/run installs both.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from console.embedded.postgres import EmbeddedPostgres, PostgresSettings
from console.embedded.postgres_files import Owner
from console.embedded.valkey import EmbeddedValkey, ValkeySettings

TEST_PASSWORD = "only-for-tests"
REDIS_KINDS = ("valkey", "redis")
POSTGRES_KINDS = ("postgres18", "postgres15")
_POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")

_numbers = itertools.count(1)

Server = TypeVar("Server", EmbeddedValkey, EmbeddedPostgres)

#: Servers by kind; the first call of a kind starts one.
RedisOf = Callable[[str], EmbeddedValkey]
PostgresOf = Callable[[str], EmbeddedPostgres]


def redis_program() -> Path | None:
    """Debian's redis-server, or the one that the environment names."""
    found = os.environ.get("HEADRACE_TEST_REDIS_SERVER") or shutil.which("redis-server")
    return Path(found) if found else None


def postgres_programs() -> Path | None:
    """The folder with PostgreSQL 15's programs, or the one that the environment names."""
    folder = Path(os.environ.get("HEADRACE_TEST_POSTGRES_BIN") or _POSTGRES_15)
    return folder if (folder / "postgres").exists() else None


class DebianRedis(EmbeddedValkey):
    """redis-server, run like the embedded Valkey."""

    def _program(self) -> Path:
        return _needed(redis_program(), "redis-server is not installed (apt-get install redis-server)")


class DebianPostgres(EmbeddedPostgres):
    """PostgreSQL 15, run like the embedded one."""

    locale = ("--locale=C.UTF-8",)

    def _programs(self, owner: Owner) -> Path:
        for above in (self.folder, self.folder.parent):
            above.chmod(0o711)  # before version 16 its programs leave their folder and come back by its path
        return _needed(postgres_programs(), "PostgreSQL 15 is not installed (apt-get install postgresql-15)").parent


def _needed(found: Path | None, reason: str) -> Path:
    """What was found; else the test is skipped, on CI it fails."""
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if found is None:
        pytest.skip(reason)
    return found


@contextlib.contextmanager
def redis_servers(folder: Path) -> Iterator[RedisOf]:
    """Cluster-enabled servers of one node, without waiting for the disk: a script over two slots fails there."""
    settings = ValkeySettings(TEST_PASSWORD, cluster=True, fsync="no", tied=True)
    classes = {"valkey": EmbeddedValkey, "redis": DebianRedis}
    with _started(lambda kind: classes[kind](folder / f"cluster-{kind}", settings)) as servers:
        yield servers


@contextlib.contextmanager
def postgres_servers(folder: Path) -> Iterator[PostgresOf]:
    """Servers without fsync."""
    settings = PostgresSettings(TEST_PASSWORD, durable=False, tied=True)
    classes = {"postgres18": EmbeddedPostgres, "postgres15": DebianPostgres}
    with _started(lambda kind: classes[kind](folder / kind, settings)) as servers:
        yield servers


@contextlib.contextmanager
def _started(make: Callable[[str], Server]) -> Iterator[Callable[[str], Server]]:
    """A function that starts a server of a kind when it is first asked for one."""
    running: dict[str, Server] = {}

    def server(kind: str) -> Server:
        if kind not in running:
            made = make(kind)
            made.start()
            running[kind] = made
        return running[kind]

    yield server
    for made in running.values():
        made.stop()


@contextlib.contextmanager
def a_database(server: EmbeddedPostgres) -> Iterator[str]:
    """DSN of an empty database, dropped afterwards, connections or not."""
    name = f"test_{next(_numbers)}"
    server.sql(f"CREATE DATABASE {name}")
    yield server.dsn_of(name)
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")
