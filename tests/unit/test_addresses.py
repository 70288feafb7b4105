"""Addresses of servers: what their URLs may look like, and what is said of those that don't."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.settings import SettingsError
from console import config
from runtime.address import Address, Guarded, Watcher


def test_sentinels_master_and_database_are_read() -> None:
    found = Address.parse("redis+sentinel://me:p%2Fw@h1:26380,[::1],h2/main/3?sentinel_username=s&sentinel_password=x")
    watchers = (Watcher("h1", 26380), Watcher("::1", 26379), Watcher("h2", 26379))
    assert found.guarded == Guarded(name="main", sentinels=watchers, username="s", password="x")
    assert (found.username, found.password, found.db, found.tls) == ("me", "p/w", 3, False)
    assert Address.parse("rediss+sentinel://h/main").tls
    assert str(found) == "main of Sentinel h1:26380,[::1]:26379,h2:26379"


def test_found_server_keeps_credentials_and_database() -> None:
    found = Address.parse("rediss+sentinel://me:pw@h/main/3").at("10.0.0.1", 6379)
    assert found == Address.parse("rediss://me:pw@10.0.0.1:6379/3")


def test_password_is_not_shown() -> None:
    assert "hush" not in repr(Address.parse("redis+sentinel://:hush@h/main?sentinel_password=hush"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://h:26379", "names no master"),
        ("redis+sentinel://h:26379/", "names no master"),
        ("redis+sentinel:///main", "each Sentinel is written HOST:PORT"),
        ("redis+sentinel://h:x/main", "each Sentinel is written HOST:PORT"),
        ("redis+sentinel://h:1,/main", "each Sentinel is written HOST:PORT"),
        ("redis+sentinel://h:70000/main", "each Sentinel is written HOST:PORT"),
        ("redis+sentinel://h/main/x", "the database behind the master's name must be a number"),
        ("redis+sentinel://h/main?db=1", "db is no option"),
    ],
)
def test_mistake_is_named_with_its_place_and_without_its_value(url: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "headrace.yaml"
    file.write_text(f"redis:\n  url: {url.replace('://', '://:hush@')}\n")
    with pytest.raises(SettingsError) as caught:
        config.load(file, environ={})
    assert str(caught.value).startswith(f"{file}:2: redis.url: {words}") and "hush" not in str(caught.value)
