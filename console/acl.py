"""Redis users by kind of process, from streams.yaml: what its rooms read and write, and nothing else. Pure.

Scripts act as the user who runs them, and every room runs those that end a run; so all may write what only scripts
write. What an ACL keeps apart is the rest: who may put entries on `requests`, `commands` and `control`, whose groups
read what, who publishes the catalog, and that nobody flushes, lists keys, configures or shuts down the server. That
two groups of one stream are different ones no ACL can say; signatures do (docs/why/security.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from console.stack import room_of
from runtime.groups import COMMANDS
from runtime.topology import Stream, Topology
from schemas.envelope import SCRIPT

#: Who speaks in every process besides its rooms: scripts, and the sweeper beside its stages.
_EVERYWHERE = frozenset({SCRIPT, "sweeper"})
#: Rooms that keep the projection of keys; each record in it is signed for its place.
_KEEPS_KEYS = frozenset({"ingress", "authorization", "audit", "console"})
_CONNECTION = "hello ping select info time client|setname client|unblock eval evalsha"
_KEYSPACE = "exists del get set mset strlen decrby pexpire pexpireat pttl"
_HASHES = "hset hdel hget hgetall hmget hincrby"
_SETS = "zadd zrem zscore zrange zrangebyscore zcard zincrby zremrangebyscore zcount sadd srem smembers"
_PUSH = "spublish ssubscribe sunsubscribe"
_COMMON = f"{_CONNECTION} {_KEYSPACE} {_HASHES} {_SETS} {COMMANDS} {_PUSH} xread"
#: For strict runs (runtime/disk.py). Not for everybody: Redis 7.0 has no WAITAOF and would not read the line.
_DISK = "waitaof config|get"
#: Keys that every process has its part in: those of partitions and organizations, and what routers and processes share.
_SHARED = ("~{*}:*", "~breakers", "~latencies", "~processes", "%R~catalog:*", "%R~key:*", "%R~control", "&{*}:push:*")


@dataclass(frozen=True, slots=True)
class User:
    """One Redis user. rules: without the password."""

    name: str
    rules: tuple[str, ...]

    def line(self, password: str) -> str:
        """As an aclfile or `ACL SETUSER` takes it; the server keeps the digest alone."""
        digest = hashlib.sha256(password.encode()).hexdigest()
        return " ".join(("user", self.name, "on", f"#{digest}", *self.rules))


def user_of(rooms: Sequence[str], topology: Topology, *, strict: bool = False) -> User:
    """The user of a process that serves these rooms. strict: its door may ask what is on the server's disk."""
    kept = frozenset(rooms)
    streams = topology.streams.values()
    written = [stream for stream in streams if _writes(kept, stream)]
    read = [stream for stream in streams if any(room_of(group) in kept for group in stream.groups)]
    rules = ["resetkeys", "resetchannels", "-@all", *_allow(_COMMON), *_SHARED]
    if strict and "ingress" in kept:
        rules += _allow(_DISK)
    rules.append(_selector("xadd", "%RW~", written))
    rules.append(_selector("exists xgroup|create", "%RW~", [s for s in streams if s.groups and not s.partitioned]))
    if read:
        rules.append(_selector("xreadgroup", "%RW~", read))
    if beside := [stream for stream in read if not stream.partitioned]:
        rules.append(_selector(f"{COMMANDS} eval evalsha", "%RW~", beside, "%RW~{*}:*"))  # its helper keys have a tag
    outside = [stream for stream in streams if stream.retention == "acknowledged" and not stream.partitioned]
    rules.append(_selector("xinfo xpending xtrim xlen xrange eval evalsha", "%RW~", outside))
    if kept & _KEEPS_KEYS:
        rules.append("(+get +set +del +pttl +eval +evalsha %RW~key:*)")
    if "provisioner" in kept:
        rules.append("(+hset +hdel +hgetall +eval +evalsha %RW~catalog:*)")
    if "console" in kept:
        rules.append(_selector("xgroup xtrim", "%RW~", [stream for stream in streams if stream.groups]))
    return User("headrace-" + "-".join(rooms), tuple(rules))


def _writes(rooms: frozenset[str], stream: Stream) -> bool:
    """The console also replays dead letters onto streams that have groups."""
    speaks = _EVERYWHERE | rooms
    return bool(speaks & stream.publishers.keys()) or ("console" in rooms and bool(stream.groups))


def _selector(commands: str, access: str, streams: Iterable[Stream], *more: str) -> str:
    """These commands on these streams. more: keys that one command may name together with them."""
    keys = [*(f"{access}{pattern(stream.key)}" for stream in streams), *more]
    return f"({' '.join([*_allow(commands), *keys])})"


def _allow(commands: str) -> list[str]:
    return [f"+{command}" for command in dict.fromkeys(commands.split())]


def pattern(key: str) -> str:
    """A key of streams.yaml as a pattern of Redis: the hash tag stays one, other names may be anything."""
    return re.sub(r"\{(?!\*)\w+\}", "*", key.replace("{p}", "{*}"))
