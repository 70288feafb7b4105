"""The users that `headrace topology acl` writes, as real servers understand them, by dry runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from console.acl import pattern, user_of
from console.stack import ROOMS, room_of
from runtime.client import Client
from runtime.names import prefix
from runtime.wire import ServerError
from tests.engine_support import TOPOLOGY

ROOT = Path(__file__).resolve().parents[2]
P = prefix(0)
KEYS = {
    name: stream.key.replace("{p}", P).replace("{pool}", "m").replace("{lane}", "batch").replace("{run}", "r")
    for name, stream in TOPOLOGY.streams.items()
}
#: What scripts write in whichever room, and what the sweeper beside every stage writes.
BY_SCRIPTS = {"cleared", "reply", "facts", "dlq"}
DANGEROUS = (
    "FLUSHALL", "KEYS *", "CONFIG SET maxmemory 1", "SHUTDOWN", "DEBUG SLEEP 0", "ACL LIST", "SCRIPT FLUSH",
    "SAVE", "CLIENT KILL ID 1", "MONITOR", "REPLICAOF no one", "XGROUP DESTROY {0}:requests rules", "SWAPDB 0 1",
)  # fmt: skip


@pytest_asyncio.fixture
async def users(redis: Client) -> AsyncIterator[Client]:
    """A server that has a user of each room; they are gone afterwards."""
    for room in ROOMS:
        _, name, *rules = user_of([room], TOPOLOGY).line("a password").split()
        await redis.execute("ACL", "SETUSER", name, *_arguments(rules))
    yield redis
    for room in ROOMS:
        await redis.execute("ACL", "DELUSER", f"headrace-{room}")


def _arguments(rules: list[str]) -> list[str]:
    """A selector is one argument."""
    return re.findall(r"\([^)]*\)|\S+", " ".join(rules))


async def may(redis: Client, room: str, *words: str) -> bool:
    """Whether the room's user may run this command."""
    return bool(await redis.execute("ACL", "DRYRUN", f"headrace-{room}", *words) == b"OK")


async def test_each_room_puts_entries_only_where_streams_yaml_lets_it(users: Client) -> None:
    for room in ROOMS:
        for name, key in KEYS.items():
            speaks = room in TOPOLOGY.streams[name].publishers or name in BY_SCRIPTS
            replays = room == "console" and bool(TOPOLOGY.streams[name].groups)
            assert await may(users, room, "XADD", key, "*", "e", "x") == (speaks or replays), (room, name)


async def test_each_room_reads_the_streams_of_its_own_groups(users: Client) -> None:
    for room in ROOMS:
        for name, stream in TOPOLOGY.streams.items():
            own = any(room_of(group) == room for group in stream.groups)
            words = ("XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", KEYS[name], ">")
            assert await may(users, room, *words) == own, (room, name)


async def test_catalog_and_keys_are_written_by_those_who_own_them(users: Client) -> None:
    for room in ROOMS:
        assert await may(users, room, "HSET", "catalog:models", "m", "x") == (room == "provisioner"), room
        assert await may(users, room, "HGETALL", "catalog:models"), room
        keeps = room in ("ingress", "authorization", "audit", "console")
        assert await may(users, room, "SET", "key:aa", "x") == keeps, room
        assert not await may(users, room, "GET", "somebody:elses"), room


async def test_only_the_provisioner_keeps_and_takes_commands(users: Client) -> None:
    for room in ROOMS:
        take = ("EVALSHA", "0" * 40, "2", "commands", "{commands}:starts:provisioner")
        for words in (take, ("XACK", "commands", "provisioner", "1-1")):
            assert await may(users, room, *words) == (room == "provisioner"), (room, words)


async def set_user(redis: Client, room: str, *, strict: bool) -> None:
    """The room's user anew."""
    _, name, *rules = user_of([room], TOPOLOGY, strict=strict).line("a password").split()
    await redis.execute("ACL", "SETUSER", name, "reset", *_arguments(rules))


async def test_only_the_door_of_strict_runs_asks_what_is_on_the_disk(users: Client) -> None:
    if (await users.execute("COMMAND", "INFO", "WAITAOF"))[0] is None:
        with pytest.raises(ServerError, match="waitaof"):  # so it is not for everybody
            await set_user(users, "ingress", strict=True)
        return
    asks = (("WAITAOF", "1", "0", "1"), ("CONFIG", "GET", "appendfsync"), ("SET", "{durable}:probe", "1", "EX", "60"))
    for strict in (False, True):
        for room in ROOMS:
            await set_user(users, room, strict=strict)
            found = [await may(users, room, *words) for words in asks]
            assert found == [strict and room == "ingress"] * 2 + [True], (room, strict)


@pytest.mark.parametrize("words", DANGEROUS)
async def test_nobody_may_harm_the_server(users: Client, words: str) -> None:
    for room in ROOMS:
        operator = room == "console" and words.startswith("XGROUP")
        assert await may(users, room, *words.split()) == operator, room


def test_every_command_of_the_code_is_one_that_some_room_may_run() -> None:
    lua = re.compile(r"""(?:call|pcall)\(\s*'([A-Z]+)'""")
    python = re.compile(r"""(?:execute|send|post)\(\s*"([A-Z]+)["\s]""")
    sources = [path for folder in ("runtime", "state") for path in (ROOT / folder).rglob("*.*")]
    files = [path for path in [*sources, *(ROOT / "console").rglob("*.py")] if path.suffix in (".lua", ".py")]
    sent = {name for path in files for found in (lua, python) for name in found.findall(path.read_text())}
    rules = " ".join(user_of(ROOMS, TOPOLOGY, strict=True).rules).split()
    allowed = {rule.split("|")[0].strip("(+)").upper() for rule in rules}
    assert len(sent) > 40 and sent - allowed == set()


def test_a_key_becomes_a_pattern_that_keeps_its_hash_tag() -> None:
    assert pattern("{p}:cleared:{pool}:{lane}") == "{*}:cleared:*:*" and pattern("control") == "control"
