"""MemoryCommands: the plain commands that the sweeper and the doors send beside the scripts, over a MemoryServer.

Only those; anything else is an error that names it. Replies have the server's shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.client import ServerError
from runtime.memory.server import MemoryServer

Part = str | bytes | int | float


class MemoryCommands:
    """Twin of runtime.client.Client as schemas.ports.Redis."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._known: Mapping[str, Callable[..., Any]] = {
            "TIME": self._time,
            "ZADD": self._zadd,
            "ZREM": self._zrem,
            "ZRANGE": self._zrange,
            "ZRANGEBYSCORE": self._zrangebyscore,
            "HMGET": self._hmget,
            "STRLEN": self._strlen,
            "DEL": self._del,
            "DECRBY": self._decrby,
        }

    async def execute(self, *parts: Part) -> Any:
        """See schemas.ports.Redis."""
        await self._server.turn()
        name = parts[0] if isinstance(parts[0], str) else repr(parts[0])
        command = self._known.get(name)
        if command is None:
            raise ServerError(f"ERR unknown command '{name}' of the memory twin")
        return command(*parts[1:])

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Scripts have a twin of their own, MemoryScripts."""
        raise ServerError("ERR the memory twin runs no Lua")

    def _time(self) -> list[bytes]:
        now = self._server.now()
        return [str(now // 1000).encode(), str(now % 1000 * 1000).encode()]

    def _zset(self, key: str) -> dict[str, int]:
        p, _, name = key.partition(":")
        sets = {"live": self._server.live, "doors": self._server.doors, "left": self._server.left}
        if name not in sets:
            raise ServerError(f"ERR the memory twin has no sorted set {key}")
        return sets[name].setdefault(p, {})

    def _ordered(self, key: str) -> list[tuple[int, str]]:
        return sorted((score, name) for name, score in self._zset(key).items())

    def _zadd(self, key: str, *rest: int | str) -> int:
        found, before = self._zset(key), len(self._zset(key))
        for at in range(0, len(rest), 2):
            found[str(rest[at + 1])] = int(rest[at])
        return len(found) - before

    def _zrem(self, key: str, *names: str | bytes) -> int:
        found = self._zset(key)
        return sum(found.pop(_text(name), None) is not None for name in names)

    def _zrange(self, key: str, start: int, stop: int) -> list[bytes]:
        names = [name.encode() for _, name in self._ordered(key)]
        return names[start : None if stop == -1 else stop + 1]

    def _zrangebyscore(self, key: str, low: str, high: int, *limit: Part) -> list[bytes]:
        names = [name.encode() for score, name in self._ordered(key) if score <= high]
        if limit:
            offset, count = int(limit[1]), int(limit[2])
            names = names[offset : offset + count]
        return names

    def _hmget(self, key: str, *names: str) -> list[bytes | None]:
        found = self._server.hashes.get(key, {})
        return [found.get(name) for name in names]

    def _strlen(self, key: str) -> int:
        return len(self._server.bodies.get(key, b""))

    def _del(self, key: str) -> int:
        return int(self._server.bodies.pop(key, None) is not None)

    def _decrby(self, key: str, count: int) -> int:
        p = key.partition(":")[0]
        self._server.bytes[p] = self._server.bytes.get(p, 0) - count
        return self._server.bytes[p]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
