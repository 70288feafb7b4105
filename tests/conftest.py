"""Real servers for every test: one Valkey, one cluster-enabled Valkey and one PostgreSQL per session.

They start when first asked for, live in a temporary folder, and end with the session, also when it is killed. A test
gets an empty Valkey (flushed) and a database of its own; tests that stop or kill a server take a spare one.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from console.embedded import ports
from console.embedded.postgres import EmbeddedPostgres, PostgresSettings
from console.embedded.valkey import EmbeddedValkey, ValkeySettings

# How long a machine takes to think of an input is no property of what is tested.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

TEST_PASSWORD = "only-for-tests"
_numbers = itertools.count(1)


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
def valkey_cluster_server(server_folder: Path) -> Iterator[EmbeddedValkey]:
    """The session's cluster-enabled Valkey: one node that owns all slots, so a script over two slots fails."""
    settings = ValkeySettings(TEST_PASSWORD, cluster=True, fsync="no", tied=True)
    server = EmbeddedValkey(server_folder / "cluster", settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """The session's PostgreSQL, without fsync."""
    server = EmbeddedPostgres(server_folder / "postgres", PostgresSettings(TEST_PASSWORD, durable=False, tied=True))
    server.start()
    yield server
    server.stop()


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
    name = f"test_{next(_numbers)}"
    postgres_server.sql(f"CREATE DATABASE {name}")
    yield postgres_server.dsn_of(name)
    postgres_server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def module_postgres(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """DSN of an empty database shared by the tests of one file."""
    name = f"module_{next(_numbers)}"
    postgres_server.sql(f"CREATE DATABASE {name}")
    yield postgres_server.dsn_of(name)
    postgres_server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports on 127.0.0.1 that were free a moment ago, one a call."""
    return ports.free_port
