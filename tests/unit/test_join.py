"""Where a process that joins finds its servers, and what it says when there are none."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from base.crypto import KeyRing, new_ring_key
from base.ids import SystemRandom
from console.join import JoinError, join, with_any_health_port

RING = KeyRing([new_ring_key(SystemRandom(), "k1")]).format()


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no settings in the environment."""
    monkeypatch.chdir(tmp_path)


def own_servers(folder: Path, keyring: str, more: str = "") -> Path:
    file = folder / "own.yaml"
    servers = "redis: {url: 'rediss://r:6379/1'}\npostgres: {dsn: 'postgresql://gate@db/headrace?sslmode=require'}\n"
    file.write_text(f"{servers}secrets: {{keyring: '{keyring}'}}\n{more}")
    return file


def test_servers_of_the_settings_come_first_and_ports_stay_as_written(tmp_path: Path) -> None:
    settings = join(["rules"], None, own_servers(tmp_path, RING, "metrics: {port: 9100}\nadmin: {port: 9000}\n"), None)
    assert settings.redis.url == "rediss://r:6379/1"
    assert (settings.metrics.port, settings.admin.port) == (9100, 9000)


def test_a_further_process_of_the_same_rooms_takes_any_health_port(tmp_path: Path) -> None:
    settings = join(["rules"], None, own_servers(tmp_path, RING, "metrics: {host: 0.0.0.0, port: 9100}\n"), None)
    metrics = with_any_health_port(settings).metrics
    assert (metrics.host, metrics.port, settings.metrics.port) == ("0.0.0.0", 0, 9100)


def test_own_servers_without_a_key_ring_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JoinError, match=r"secrets\.keyring\) is not set"):
        join(["rules"], None, own_servers(tmp_path, ""), None)


def test_the_environment_names_servers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://r:6379/1")
    monkeypatch.setenv("HEADRACE__POSTGRES__DSN", "postgresql://gate@db/headrace?sslmode=require")
    monkeypatch.setenv("HEADRACE__SECRETS__KEYRING", RING)
    assert join(["audit"], None, None, None).postgres.dsn == "postgresql://gate@db/headrace?sslmode=require"


def test_without_servers_or_a_running_headrace_there_is_nothing_to_join(tmp_path: Path) -> None:
    with pytest.raises(JoinError, match=r"nothing to join: no Headrace runs on .*/empty; start one with `headrace up`"):
        join(["rules"], tmp_path / "empty", None, None)
    assert not (tmp_path / "empty").exists()


def test_a_folder_whose_headrace_has_stopped_is_nothing_to_join(tmp_path: Path) -> None:
    secrets = {"keyring": RING, "valkey_password": "v", "postgres_password": "p"}
    (tmp_path / "secrets.json").write_text(json.dumps(secrets))
    (tmp_path / "secrets.json").chmod(0o600)
    with pytest.raises(JoinError, match="nothing to join"):
        join(["rules"], tmp_path, None, None)


def test_a_door_takes_the_port_it_is_given_else_the_settings_or_any_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = own_servers(tmp_path, RING, f"server: {{port: {port}}}\n")
        assert join(["ingress"], None, file, None).server.port == 0
        assert join(["ingress"], None, file, port).server.port == port
    assert join(["ingress"], None, file, None).server.port == port


@pytest.mark.parametrize("text", ["", "[]", "null", '{"config": 5}', '{"config": "a\\u0000b"}', "[" * 100_000])
def test_a_damaged_connection_json_is_named_and_not_guessed_at(tmp_path: Path, text: str) -> None:
    """Without the settings file of `up` a process would judge by another policy than those beside it."""
    (tmp_path / "connection.json").write_text(text)
    with pytest.raises(JoinError, match=r"connection\.json is damaged"):
        join(["rules"], tmp_path, None, None)
