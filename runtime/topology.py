"""streams.yaml as values: read, checked as a whole, applied to a server, shown. Also the checks of the server itself.

Every error of the file is reported at once with its line. A server that could lose or silently drop entries is
refused at start, each refusal with its remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from base.shipped import shipped
from runtime.group_spec import Spec
from runtime.names import prefix
from schemas import commands, events
from schemas.envelope import message_classes
from schemas.errors import HeadraceError

_SPOKEN = (events, commands)  # imported so that their messages are known by name
_UNSIGNED = {"Frame", "DeadLetter", "RequestCleared"}
_STRICT = ConfigDict(extra="forbid", frozen=True)


class TopologyError(HeadraceError):
    """All errors of a topology file, one line each: file:line: key: what is wrong."""


class UnsafeServer(HeadraceError):
    """A server that could lose or drop entries without a word; every reason with its remedy."""


class Group(BaseModel):
    """One consumer group. idle_limit in ms: how long a silent consumer keeps its entries. pace in ms: pause between
    reads, for larger batches where nobody waits. marked: a field; entries without it are of no concern to the group and
    are acknowledged unopened."""

    model_config = _STRICT
    room: str
    description: str = Field(min_length=10)
    batch: int = Field(ge=1, le=1000)
    concurrency: int = Field(ge=1, le=100_000)
    idle_limit: int = Field(ge=100, le=600_000)
    max_starts: int = Field(ge=1, le=20)
    pace: int = Field(default=0, ge=0, le=10_000)
    marked: str = Field(default="", pattern=r"^[a-z]*$")


class Stream(BaseModel):
    """One kind of stream. retention: acknowledged | ended | ttl | age | operator."""

    model_config = _STRICT
    key: str
    description: str = Field(min_length=10)
    publishers: dict[str, list[str]]
    retention: Literal["acknowledged", "ended", "ttl", "age", "operator"]
    ttl: int | None = Field(default=None, ge=1000)
    age: int | None = Field(default=None, ge=1000)
    lanes: list[str] = []
    groups: dict[str, Group] = {}

    @model_validator(mode="after")
    def _times(self) -> Stream:
        for kind in ("ttl", "age"):
            if (self.retention == kind) != (getattr(self, kind) is not None):
                raise ValueError(f"`{kind}` (milliseconds) goes with `retention: {kind}` and only with it")
        return self

    @property
    def partitioned(self) -> bool:
        return self.key.startswith("{p}")


class Topology(BaseModel):
    """The whole file."""

    model_config = _STRICT
    version: Literal[1]
    families: list[str] = Field(min_length=1)
    streams: dict[str, Stream]

    @model_validator(mode="after")
    def _whole(self) -> Topology:
        known = set(message_classes()) | _UNSIGNED
        problems = [
            f"streams.{name}.publishers.{who}: no message is called {kind!r}"
            for name, stream in self.streams.items()
            for who, kinds in stream.publishers.items()
            for kind in kinds
            if kind not in known
        ]
        groups = self.streams["requests"].groups if "requests" in self.streams else {}
        problems += [f"families: {f!r} is no group of streams.requests" for f in self.families if f not in groups]
        if "authorization" not in self.families:
            problems.append("families: 'authorization' is missing: nothing is decided before it has answered")
        if "reply" in self.streams and self.streams["reply"].retention != "ttl":
            problems.append("streams.reply.retention: must be ttl: the end of a run sets it")
        problems += [f"streams: {name!r} is missing" for name in _NEEDED if name not in self.streams]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def spec(self, stream: str, group: str) -> Spec:
        """One group as the engine takes it. LookupError when it is not declared."""
        found, of = self.streams[stream].groups[group], self.streams[stream]
        return Spec(
            stream=stream,
            group=group,
            publishers=of.publishers,
            batch=found.batch,
            concurrency=found.concurrency,
            idle_ms=found.idle_limit,
            max_starts=found.max_starts,
            single=stream == "cleared",
            pace_ms=found.pace,
            marked=found.marked,
        )

    def with_idle_limits(self, limits: Mapping[str, int]) -> Topology:
        """The same with other idle limits, ms by group. TopologyError for a group that is not declared."""
        known = {name for stream in self.streams.values() for name in stream.groups}
        if unknown := sorted(set(limits) - known):
            raise TopologyError(f"no group {', '.join(unknown)}; groups: {', '.join(sorted(known))}")
        data = self.model_dump()
        for stream in data["streams"].values():
            for name, group in stream["groups"].items():
                group["idle_limit"] = limits.get(name, group["idle_limit"])
        return Topology.model_validate(data)

    def group_stream(self, group: str) -> str:
        """The stream that a group reads. LookupError when no stream has it."""
        for name, stream in self.streams.items():
            if group in stream.groups:
                return name
        raise LookupError(f"streams.yaml has no group {group!r}")

    def may(self, stream: str, publisher: str, kind: str) -> bool:
        """Whether `publisher` may put `kind` on `stream`."""
        return kind in self.streams[stream].publishers.get(publisher, [])

    @property
    def reply_ttl_ms(self) -> int:
        """How long an ended run stays readable."""
        return self.streams["reply"].ttl or 0

    def keys(self, partitions: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """(stream name, key, groups) of every stream whose key is known beforehand."""
        for name, stream in self.streams.items():
            if "{run}" in stream.key or "{pool}" in stream.key:
                continue
            for p in range(partitions if stream.partitioned else 1):
                yield name, stream.key.replace("{p}", prefix(p)), tuple(stream.groups)


_NEEDED = ("requests", "cleared", "reply", "facts", "dlq", "commands", "control")


def packaged() -> str:
    """The topology's text as installed (or in the checkout)."""
    return shipped("runtime", "streams.yaml")


def load(text: str | None = None, file: str = "streams.yaml") -> Topology:
    """The topology of `text` (by default the installed one). TopologyError lists everything that is wrong."""
    text = packaged() if text is None else text
    try:
        node = yaml.compose(text)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise TopologyError(f"{file}:{line}: not YAML: {getattr(error, 'problem', error)}") from None
    try:
        return Topology.model_validate(data)
    except ValidationError as error:
        lines = _lines(node)
        complaints = [_complaint(file, lines, item) for item in error.errors()]
        raise TopologyError("\n".join(complaints)) from None


def _complaint(file: str, lines: Mapping[tuple[str, ...], int], item: Any) -> str:
    path = tuple(str(part) for part in item["loc"])
    known = path
    while known and known not in lines:
        known = known[:-1]
    message = item["msg"].removeprefix("Value error, ")
    return f"{file}:{lines.get(known, 1)}: {'.'.join(path) or 'file'}: {message}"


def _lines(node: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """Where each key stands, 1-based."""
    found = {path: node.start_mark.line + 1} if node is not None else {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found.update(_lines(value, here))
            found[here] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            found.update(_lines(value, (*path, str(i))))
    return found


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a server says of itself. policy: maxmemory-policy. aof: appendonly. version: of the Redis command set.
    replica: it follows another server and takes no writes."""

    version: tuple[int, ...]
    policy: str
    aof: bool
    replica: bool = False


def unsafe(server: ServerFacts, *, allow_no_aof: bool = False) -> list[str]:
    """Why this server must not carry runs; each with its remedy. Empty when it may."""
    problems = []
    if server.version < (7, 0):
        shown = ".".join(map(str, server.version))
        problems.append(f"the server speaks Redis {shown}; Headrace needs Redis 7.0 or Valkey 7.2: upgrade it")
    if server.replica:
        problems.append("the server is a replica and takes no writes; name the primary, or run REPLICAOF NO ONE there")
    if server.policy != "noeviction":
        problems.append(
            f"maxmemory-policy is {server.policy}: it deletes live streams without an error; "
            "run CONFIG SET maxmemory-policy noeviction and put it into the server's configuration"
        )
    if not server.aof and not allow_no_aof:
        problems.append(
            "appendonly is off: a restart would lose every accepted request; run CONFIG SET appendonly yes "
            "(appendfsync everysec), or set redis.allow_no_aof: true if you accept the loss"
        )
    return problems


async def server_facts(redis: Any) -> ServerFacts:
    """Ask a server (schemas.ports.Redis). INFO alone, for CONFIG is often forbidden."""
    info = _info(await redis.execute("INFO"))
    return ServerFacts(
        version=tuple(int(part) for part in info["redis_version"].split(".")[:2]),
        policy=info.get("maxmemory_policy", "unknown"),
        aof=info.get("aof_enabled") == "1",
        replica=info.get("role") == "slave",
    )


def _info(reply: bytes | str) -> dict[str, str]:
    text = reply.decode() if isinstance(reply, bytes) else reply
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def make_ready(topology: Topology, partitions: int, redis: Any, *, allow_no_aof: bool) -> list[str]:
    """Refuse an unsafe server, then `apply`. UnsafeServer."""
    problems = unsafe(await server_facts(redis), allow_no_aof=allow_no_aof)
    if problems:
        raise UnsafeServer("the Redis server is not safe to use: " + "; ".join(problems))
    return await apply(topology, partitions, redis)


async def missing(topology: Topology, partitions: int, redis: Any) -> list[str]:
    """Declared groups that the server does not have, as `group on key`; looks, changes nothing."""
    found = []
    for _, key, groups in topology.keys(partitions):
        rows = await redis.execute("XINFO", "GROUPS", key) if groups and await redis.execute("EXISTS", key) else []
        there = {row[b"name"].decode() for row in rows}
        found += [f"{group} on {key}" for group in groups if group not in there]
    return found


async def apply(topology: Topology, partitions: int, redis: Any) -> list[str]:
    """Create every declared group at 0 and destroy groups that are no longer declared; says what it did."""
    from runtime.client import ServerError

    said = []
    for name, key, groups in topology.keys(partitions):
        for group in groups:
            try:
                await redis.execute("XGROUP", "CREATE", key, group, "0", "MKSTREAM")
                said.append(f"created group {group} on {key}")
            except ServerError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        if topology.streams[name].groups:
            said += await _destroy_strangers(redis, key, groups)
    return said


async def _destroy_strangers(redis: Any, key: str, groups: tuple[str, ...]) -> list[str]:
    """Groups that streams.yaml no longer has would hold back trimming for ever."""
    said = []
    for group in await redis.execute("XINFO", "GROUPS", key):
        name = group[b"name"].decode()
        if name not in groups:
            await redis.execute("XGROUP", "DESTROY", key, name)
            said.append(f"destroyed group {name} on {key}")
    return said
