"""From `headrace init` on own servers to an answered request; nothing embedded runs, and the servers stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.embedded import processes
from console.stack import ROOMS
from tests.conftest import short_folder
from tests.e2e.house import Engine, headrace, scripted_engine, until
from tests.own_servers import TOKEN, own_servers
from tests.own_servers import headrace as command

NARROW = "on >narrow-pass ~* &* +@all -@admin -@dangerous +info"  # docs/how-to/own-servers.md
CHAT = {"model": "hosted", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine() as running:
        yield running


def own_users(port: int) -> tuple[str, list[str]]:
    """What `headrace topology acl` writes: the settings with an address for each room, and the lines of the users."""
    said = command("topology", "acl", environment={}, folder=Path.cwd())
    assert said.code == 0, said.err
    users, _, settings = said.out.partition("\n\n")
    return settings.replace("@HOST:6379", f"@127.0.0.1:{port}"), users.splitlines()[1:]


def names_of(clients: bytes) -> set[str]:
    """Who is connected."""
    return set(re.findall(r" user=(\S+)", clients.decode()))


def test_a_request_is_answered_on_own_servers_and_nothing_embedded_runs(tmp_path: Path, engine: Engine) -> None:
    with short_folder() as folder, own_servers(folder) as servers:
        servers.redis.ask("ACL", "SETUSER", "narrow", *NARROW.split())
        narrow = servers.redis.url.replace(":only-for-tests@", "narrow:narrow-pass@")
        environment = servers.environment(INTERNAL_API_KEY=TOKEN, REDIS_URL=narrow)
        made = command("init", environment=environment, folder=tmp_path)
        assert made.code == 0, made.err
        key = re.search(r"first application key\n +(hr_\w+)", made.out)
        assert key is not None, made.out
        settings, lines = own_users(servers.redis.port)
        for line in lines:
            servers.redis.ask("ACL", "SETUSER", *re.findall(r"\([^)]*\)|\S+", line)[1:])
        service = {name: value for name, value in environment.items() if not name.startswith("PG_ADMIN")}
        with headrace(tmp_path / "data", "--processes", "split", settings=settings, environment=service) as house:
            assert not any(
                (house.folder / name).exists() for name in ("valkey", "postgres", "secrets.json", "keys.json")
            )
            assert not {"valkey", "postgres"} & set(house.connection["pids"])
            add = ("models", "add", "hosted", "--url", engine.url, "--private", "--wait", "--data", str(house.folder))
            added = command(*add, environment={}, folder=tmp_path)
            assert added.code == 0, added.err
            status, answer = house.request("/v1/chat/completions", CHAT, key=key[1])
            assert (status, answer["object"]) == (200, "chat.completion"), answer
            rows = until(lambda: house.request("/admin/v1/requests")[1]["data"])
            assert rows[0]["outcome"] == "completed"
            assert names_of(servers.redis.ask("CLIENT", "LIST")) >= {f"headrace-{room}" for room in ROOMS}
            assert house.stop() == 0
        assert b"headrace-" not in servers.redis.ask("ACL", "LOG")  # nobody was refused anything
        assert "Your servers run on" in (tmp_path / "data/up.log").read_text()
        assert processes.is_alive(servers.redis.identity) and processes.is_alive(servers.postgres.identity)
        again = command("init", environment=environment, folder=tmp_path)
        assert again.out.endswith("Everything was there; nothing was changed.\n"), again
