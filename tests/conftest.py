"""Real servers for every test: one Valkey, one cluster-enabled Valkey and one PostgreSQL per session; for the contract
suites also Debian's older ones (tests/servers.py).

They start when first asked for, live in a temporary folder, and end with the session, also when it is killed. A test
gets an empty Valkey (flushed) and a database of its own; tests that stop or kill a server take a spare one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from base import ports
from console.config import UNUSED, WELL_KNOWN
from console.embedded.postgres import EmbeddedPostgres, PostgresSettings
from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from tests.servers import TEST_PASSWORD, PostgresOf, RedisOf, a_database, postgres_servers, redis_servers

# How long a machine takes to think of an input is no property of what is tested.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

for _name in (*WELL_KNOWN, *UNUSED):  # a developer's own servers are not for tests
    os.environ.pop(_name, None)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder that is removed whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder with a short path (unix sockets allow 107 bytes), removed at the end."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def valkey_server(server_folder: Path) -> Iterator[EmbeddedValkey]:
    """The session's plain Valkey, as the embedded default runs it (AOF, noeviction), without waiting for the disk."""
    server = EmbeddedValkey(server_folder / "valkey", ValkeySettings(TEST_PASSWORD, fsync="no", tied=True))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_of(server_folder: Path) -> Iterator[RedisOf]:
    """The session's cluster-enabled servers by kind: one node that owns all slots, so a script over two slots fails."""
    with redis_servers(server_folder) as servers:
        yield servers


@pytest.fixture(scope="session")
def postgres_of(server_folder: Path) -> Iterator[PostgresOf]:
    """The session's PostgreSQL servers by kind, without fsync."""
    with postgres_servers(server_folder) as servers:
        yield servers


@pytest.fixture(scope="session")
def valkey_cluster_server(redis_of: RedisOf) -> EmbeddedValkey:
    """The session's cluster-enabled Valkey."""
    return redis_of("valkey")


@pytest.fixture(scope="session")
def postgres_server(postgres_of: PostgresOf) -> EmbeddedPostgres:
    """The session's embedded PostgreSQL."""
    return postgres_of("postgres18")


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> str:
    """URL of an empty plain Valkey."""
    valkey_server.ask("FLUSHALL")
    return valkey_server.url


@pytest.fixture
def valkey_cluster(valkey_cluster_server: EmbeddedValkey) -> str:
    """URL of an empty cluster-enabled Valkey."""
    valkey_cluster_server.ask("FLUSHALL")
    return valkey_cluster_server.url


@pytest.fixture
def spare_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey of this test alone, to be stopped, killed and started again (`os.kill(server.pid, ...)`, `start()`)."""
    with short_folder() as folder:
        server = EmbeddedValkey(folder, ValkeySettings(TEST_PASSWORD, fsync="always", tied=True))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def spare_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this test alone, with fsync, to be stopped, killed and started again."""
    with short_folder() as folder:
        server = EmbeddedPostgres(folder / "postgres", PostgresSettings(TEST_PASSWORD, tied=True))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgres(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """DSN of an empty database of this test alone; dropped afterwards, connections or not."""
    with a_database(postgres_server) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def module_postgres(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """DSN of an empty database shared by the tests of one file."""
    with a_database(postgres_server) as dsn:
        yield dsn


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports on 127.0.0.1 that were free a moment ago, one a call."""
    return ports.free_port
