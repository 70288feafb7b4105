"""Servers as an operator has them, for tests: Debian's Redis and PostgreSQL with passwords, started by the test."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from base.ids import SystemRandom
from console.cli.main import run
from console.embedded.postgres import PostgresSettings
from console.embedded.valkey import ValkeySettings
from console.secrets import new_ring, new_token
from tests.servers import TEST_PASSWORD, DebianPostgres, DebianRedis

RING = new_ring(SystemRandom())
TOKEN = new_token(RING, SystemRandom())


@dataclass(frozen=True)
class OwnServers:
    """The two servers, and the variables that name them."""

    redis: DebianRedis
    postgres: DebianPostgres

    def environment(self, database: str = "gate", **more: str) -> dict[str, str]:
        """What an operator would write into .env. more: replaces; an empty value takes one away."""
        login = f"postgresql://{database}-service:own%2Fpass@127.0.0.1:{self.postgres.port}/{database}"
        named = {**environment_of(self.redis.url, login), **more}
        return {name: value for name, value in named.items() if value}


def environment_of(redis: str, postgres: str) -> dict[str, str]:
    """The variables of an own house."""
    return {
        "REDIS_URL": redis,
        "DATABASE_URL": postgres,
        "PG_ADMIN_USER": "headrace",
        "PG_ADMIN_PASSWORD": TEST_PASSWORD,
        "SECRET_ENCRYPTION_KEY": RING.partition(":")[2],
    }


@contextmanager
def own_servers(folder: Path) -> Iterator[OwnServers]:
    """Both, in folders of their own, until the block ends."""
    redis = DebianRedis(folder / "redis", ValkeySettings(TEST_PASSWORD, fsync="no", tied=True))
    postgres = DebianPostgres(folder / "pg", PostgresSettings(TEST_PASSWORD, durable=False, tied=True))
    try:
        redis.start()
        postgres.start()
        yield OwnServers(redis, postgres)
    finally:
        postgres.stop()
        redis.stop()


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


def headrace(*words: str, environment: Mapping[str, str], folder: Path) -> Said:
    """One command as if started in `folder` with these variables and no others."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(this_environment(environment))
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        code = run(words)
    return Said(code, out.getvalue(), err.getvalue())


@contextmanager
def this_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """os.environ holds these and no others inside the block."""
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update({"PATH": kept.get("PATH", ""), **environment})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
