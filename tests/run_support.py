"""What tests of delivery need: one World over a server or the twin, hands that make runs, a clock that obeys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec.structs import replace

from base.clock import SystemClock
from base.crypto import KeyRing, RingKey
from base.ids import SystemRandom, mint_run_id
from runtime.acceptance import Acceptance
from runtime.claims import Moved, Taker
from runtime.client import Address, Client
from runtime.groups import Groups, RedisGroups
from runtime.memory import (
    MemoryCommands,
    MemoryGroups,
    MemoryPuller,
    MemoryPush,
    MemoryRuns,
    MemoryScripts,
    MemoryServer,
    MemoryShared,
)
from runtime.memory.server import text_of
from runtime.names import kept_key, prefix, prefix_of, starts_key
from runtime.push import Push, RedisPush
from runtime.runs import RedisRuns, Runs
from runtime.scripts import Answer, Ending, RedisScripts, Said, Scripts, SealedFrame, Seat, Write, only
from runtime.together import RedisPuller, SharedGroups, Together
from schemas.envelope import Signed
from schemas.ports import Redis

PARTITIONS = 4
RETENTION_MS = 60_000
FAMILIES = ("authorization", "rules", "persons")
POOL, LANE = "tiny", "interactive"
RING = KeyRing([RingKey("t1", bytes(range(32)))])
CLOCK, CHANCE = SystemClock(), SystemRandom()

Entry = tuple[str, Mapping[bytes, bytes]]


class World(Protocol):
    """One implementation of delivery, and a look behind it."""

    scripts: Scripts
    runs: Runs
    push: Push

    @property
    def redis(self) -> Redis: ...

    async def groups(self) -> Groups: ...

    async def together(self, stream: str, count: int) -> list[Groups]:
        """So many groups that read the stream together."""
        ...

    async def entries(self, stream: str) -> list[Entry]: ...

    async def pending(self, stream: str, group: str) -> dict[str, str]: ...

    async def starts(self, stream: str, group: str) -> dict[str, int]: ...

    async def live(self, p: str) -> dict[str, int]: ...

    async def kept_bytes(self, p: str) -> int: ...

    async def aside_bytes(self, p: str) -> int: ...

    async def lanes(self, p: str) -> set[str]: ...

    async def body(self, run: str) -> bytes | None: ...

    async def expires(self, key: str) -> bool: ...

    async def consumers(self, stream: str, group: str) -> set[str]: ...

    async def unread(self, stream: str, group: str) -> int: ...

    async def add(self, stream: str, fields: Mapping[str, bytes]) -> str: ...

    async def delete(self, stream: str, entry: str) -> None: ...

    async def forget(self, key: str) -> None: ...

    async def flush_all(self) -> None: ...

    async def replica(self) -> Any:
        """What a replica has that stops to follow now."""
        ...

    async def promote(self, replica: Any) -> None:
        """A failover to it: whatever was written since is lost, and another server is in charge."""
        ...


class MemoryWorld:
    """The twin. clock: bends its time."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.scripts: Scripts = MemoryScripts(server, RETENTION_MS)
        self.runs: Runs = MemoryRuns(server)
        self.push: Push = MemoryPush(server)
        self.redis = MemoryCommands(server)

    async def groups(self) -> Groups:
        return MemoryGroups(self.server)

    async def together(self, stream: str, count: int) -> list[Groups]:
        reader = MemoryGroups(self.server)
        shared = Together(stream, MemoryPuller(self.server, reader), CLOCK)
        return [MemoryShared(self.server, reader, shared) for _ in range(count)]

    async def entries(self, stream: str) -> list[Entry]:
        found = self.server.streams.get(stream)
        return [(text_of(id), fields) for id, fields in found.entries.items()] if found else []

    async def pending(self, stream: str, group: str) -> dict[str, str]:
        found = self.server.group(stream, group)
        return {text_of(id): row.consumer for id, row in found.pending.items()} if found else {}

    async def starts(self, stream: str, group: str) -> dict[str, int]:
        return dict(self.server.starts.get(starts_key(stream, group), {}))

    async def live(self, p: str) -> dict[str, int]:
        return dict(self.server.live.get(p, {}))

    async def kept_bytes(self, p: str) -> int:
        return self.server.bytes.get(p, 0)

    async def aside_bytes(self, p: str) -> int:
        return self.server.aside(p)

    async def lanes(self, p: str) -> set[str]:
        return set(self.server.lanes.get(p, ()))

    async def body(self, run: str) -> bytes | None:
        return self.server.bodies.get(f"{prefix_of(run)}:body:{run}")

    async def expires(self, key: str) -> bool:
        return self.server.expires(key)

    async def consumers(self, stream: str, group: str) -> set[str]:
        found = self.server.group(stream, group)
        return set(found.consumers) if found else set()

    async def unread(self, stream: str, group: str) -> int:
        found = self.server.group(stream, group)
        return len(list(self.server.streams[stream].after(found.last))) if found else -1

    async def add(self, stream: str, fields: Mapping[str, bytes]) -> str:
        return self.server.add(stream, fields)

    async def delete(self, stream: str, entry: str) -> None:
        self.server.delete(stream, entry)

    async def forget(self, key: str) -> None:
        self.server.streams.pop(key, None)
        self.server.hashes.pop(key, None)
        self.server.wake()

    async def flush_all(self) -> None:
        self.server.clear()

    async def replica(self) -> Any:
        return self.server.replica()

    async def promote(self, replica: Any) -> None:
        self.server.promote(replica)


class RedisWorld:
    """A server. redis: for whatever a test wants to ask it."""

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self.redis = Client(self.address, CLOCK, CHANCE, name="test")
        self.scripts: Scripts = RedisScripts(self.redis, RETENTION_MS)
        self.runs: Runs = RedisRuns(self.redis)
        self._push = RedisPush(self.address, CLOCK, CHANCE, "test")
        self.push: Push = self._push
        self._readers: list[Client] = []

    async def start(self) -> None:
        await self.redis.connect()
        await self._push.start()

    async def stop(self) -> None:
        await self._push.stop()
        for reader in self._readers:
            await reader.close()
        await self.redis.close()

    async def groups(self) -> Groups:
        return RedisGroups(self.redis, await self._reader())

    async def together(self, stream: str, count: int) -> list[Groups]:
        reader = await self._reader()
        shared = Together(stream, RedisPuller(self.redis, reader), CLOCK)
        return [SharedGroups(self.redis, reader, shared) for _ in range(count)]

    async def _reader(self) -> Client:
        reader = Client(self.address, CLOCK, CHANCE, name="test:reader", silence=12)
        await reader.connect()
        self._readers.append(reader)
        return reader

    async def entries(self, stream: str) -> list[Entry]:
        rows = await self.redis.execute("XRANGE", stream, "-", "+")
        return [(id.decode(), {flat[i]: flat[i + 1] for i in range(0, len(flat), 2)}) for id, flat in rows]

    async def pending(self, stream: str, group: str) -> dict[str, str]:
        if not await self.redis.execute("EXISTS", stream):
            return {}
        rows = await self.redis.execute("XPENDING", stream, group, "-", "+", 1000)
        return {row[0].decode(): row[1].decode() for row in rows}

    async def starts(self, stream: str, group: str) -> dict[str, int]:
        found = await self.redis.execute("HGETALL", starts_key(stream, group))
        return {entry.decode(): int(count) for entry, count in found.items()}

    async def live(self, p: str) -> dict[str, int]:
        rows = await self.redis.execute("ZRANGE", f"{p}:live", 0, -1, "WITHSCORES")
        return {run.decode(): int(score) for run, score in rows}

    async def kept_bytes(self, p: str) -> int:
        return int(await self.redis.execute("GET", f"{p}:bytes") or 0)

    async def aside_bytes(self, p: str) -> int:
        return int(await self.redis.execute("GET", f"{p}:keeping:bytes") or 0)

    async def lanes(self, p: str) -> set[str]:
        return {lane.decode() for lane in await self.redis.execute("SMEMBERS", f"{p}:lanes")}

    async def body(self, run: str) -> bytes | None:
        found: bytes | None = await self.redis.execute("GET", f"{prefix_of(run)}:body:{run}")
        return found

    async def expires(self, key: str) -> bool:
        return int(await self.redis.execute("PTTL", key)) > 0

    async def consumers(self, stream: str, group: str) -> set[str]:
        rows = await self.redis.execute("XINFO", "CONSUMERS", stream, group)
        return {row[b"name"].decode() for row in rows}

    async def unread(self, stream: str, group: str) -> int:
        if not await self.redis.execute("EXISTS", stream):
            return -1
        for row in await self.redis.execute("XINFO", "GROUPS", stream):
            if row[b"name"] == group.encode():
                return len(await self.redis.execute("XRANGE", stream, b"(" + row[b"last-delivered-id"], "+"))
        return -1

    async def add(self, stream: str, fields: Mapping[str, bytes]) -> str:
        flat = [part for name, value in fields.items() for part in (name.encode(), value)]
        return str((await self.redis.execute("XADD", stream, "*", *flat)).decode())

    async def delete(self, stream: str, entry: str) -> None:
        await self.redis.execute("XDEL", stream, entry)

    async def forget(self, key: str) -> None:
        await self.redis.execute("DEL", key)

    async def flush_all(self) -> None:
        await self.redis.execute("FLUSHALL")

    async def replica(self) -> Any:
        """Every key as DUMP writes it (a stream with its groups), with its time to live."""
        keys = await self.redis.execute("KEYS", "*")
        dumps = await asyncio.gather(*(self.redis.execute("DUMP", key) for key in keys))
        lives = await asyncio.gather(*(self.redis.execute("PTTL", key) for key in keys))
        return {key: (max(0, life), dump) for key, life, dump in zip(keys, lives, dumps, strict=True)}

    async def promote(self, replica: Any) -> None:
        """The same server takes the keys back, and the word for who is in charge is another's."""
        gone = [key for key in await self.redis.execute("KEYS", "*") if key not in replica]
        steps = [self.redis.execute("DEL", key) for key in gone]
        steps += [self.redis.execute("RESTORE", key, life, dump, "REPLACE") for key, (life, dump) in replica.items()]
        steps += [self.redis.execute("HSET", key, "id", "old") for key in replica if key.endswith(b":server")]
        await asyncio.gather(*steps)


@asynccontextmanager
async def open_world(kind: str, url: Callable[[], str]) -> AsyncIterator[World]:
    """`memory` or `valkey`; the url is only asked for when it is needed."""
    if kind == "memory":
        yield MemoryWorld(MemoryServer(CLOCK))
        return
    world = RedisWorld(url())
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


async def open_gates(scripts: Scripts, *pools: str, slots: int = 1_000) -> None:
    """A router has room in every partition, as announced by one that never dies in a test."""
    for number in range(PARTITIONS):
        await scripts.announce(prefix(number), "r1", 600_000, dict.fromkeys(pools or (POOL,), slots), 1_000)


async def until(done: Callable[[], Any], seconds: float = 20.0) -> None:
    """Poll until `done` (a function or coroutine function) is true; AssertionError at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        answer = done()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return
        assert loop.time() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


def signed(text: str) -> Signed:
    """Something that looks signed; scripts never look inside."""
    return Signed(text.encode(), b"signature of " + text.encode())


def acceptance(run: str, **changes: Any) -> Acceptance:
    """A run of three families with a body of 100 bytes."""
    new = Acceptance(
        run=run,
        signed=signed(f"accepted {run}"),
        body=b"b" * 100,
        deadline_ms=60_000,
        checks_ms=5_000,
        most_runs=100,
        most_bytes=100_000,
        families=FAMILIES,
        watcher="door#1",
        policy="cancel",
        key_id="k1",
        stream=True,
    )
    return replace(new, **changes)


async def store_frame(scripts: Scripts, run: str, owner: str, last: int, sealed: SealedFrame, *, epoch: int = 1) -> str:
    """One frame of one run."""
    (word,) = await scripts.flush([Write(run, owner, epoch, last, sealed)])
    return word


def frame(text: str, events: int = 1, kind: str = "data", headers: bytes = b"") -> SealedFrame:
    return SealedFrame(kind=kind, events=events, payload=text.encode(), headers=headers)


def ending(kind: str, run: str, outcome: str = "completed") -> Ending:
    return Ending(kind=kind, signed=signed(f"{kind} {run}"), outcome=outcome)


def answer(run: str, family: str, outcome: str = "pass", entry: str = "") -> Answer:
    """What a family's acts would send."""
    grant: dict[str, Any] = {}
    if family == "authorization" and outcome != "refuse":
        grant = {"pool": POOL, "lane": LANE, "tenant": "org"}
    refusal: dict[str, Any] = {}
    if outcome == "refuse":
        refusal = {
            "frame": f"no of {family}".encode(),
            "ending": ending("RequestRefused", f"{run} {family}", "refused"),
        }
    return Answer(
        run=run,
        family=family,
        entry=entry,
        outcome=outcome,
        stored=f"verdict {family} {outcome}".encode(),
        **grant,
        **refusal,
    )


async def verdicts(scripts: Scripts, answers: Sequence[Answer], taker: Taker | None = None) -> Moved:
    """Answers of several families about one run, in one step."""
    return only(await scripts.verdicts([Said(answers, taker)]))


@dataclass
class Hands:
    """Drives one run through a world as the rooms would."""

    world: World
    run: str = field(default_factory=lambda: mint_run_id(CLOCK, CHANCE, 2))

    @property
    def p(self) -> str:
        return prefix_of(self.run)

    @property
    def requests(self) -> str:
        return f"{self.p}:requests"

    @property
    def lane(self) -> str:
        return f"{self.p}:cleared:{POOL}:{LANE}"

    @property
    def facts(self) -> str:
        return f"{self.p}:facts"

    @property
    def reply(self) -> str:
        return f"{self.p}:reply:{self.run}"

    @property
    def hash(self) -> str:
        return f"{self.p}:run:{self.run}"

    async def accept(self, **changes: Any) -> tuple[bool, int]:
        """Accepted, while a router has room for it."""
        await self.announce()
        return await self.world.scripts.accept(acceptance(self.run, **changes))

    async def read(self, stream: str, group: str, consumer: str) -> list[str]:
        """New entries of a group for a consumer."""
        groups = await self.world.groups()
        await groups.ensure(stream, group)
        return [row.entry for row in await groups.read([stream], group, consumer, 10, 50)]

    async def announce(self, slots: int = 1_000, router: str = "r1", pool: str = POOL, most: int = 1_000) -> Seat:
        """A router says what it can take."""
        return await self.world.scripts.announce(self.p, router, 60_000, {pool: slots}, most)

    async def clear(self) -> None:
        """Accept, and let every family pass."""
        await self.accept()
        for family in FAMILIES:
            await self.world.scripts.verdict(answer(self.run, family))

    async def queue(self, consumer: str = "r1") -> str:
        """A cleared run whose entry `consumer` has read; the entry."""
        await self.clear()
        return (await self.read(self.lane, "router", consumer))[0]

    async def own(self, consumer: str = "r1", owner: str = "r1:a") -> str:
        """A running run owned by `owner`; its entry."""
        entry = await self.queue(consumer)
        claim = await self.world.scripts.claim(self.run, self.lane, entry, consumer, owner)
        assert claim.state == "ok"
        return entry

    async def take_over(self, entry: str, consumer: str = "r2", owner: str = "r2:b") -> None:
        """Another router takes the entry and claims the run."""
        taken = await self.world.scripts.take(self.lane, "router", consumer, 0, entry)
        assert taken.state == "taken"
        assert (await self.world.scripts.claim(self.run, self.lane, entry, consumer, owner)).state == "ok"

    async def flush(self, last: int, owner: str = "r1:a", events: int = 1) -> str:
        return await store_frame(self.world.scripts, self.run, owner, last, frame(f"f{last}", events))

    async def end(self, place: str, owner: str = "r1:a", guard: str = "owner") -> str:
        last = frame("last", kind="end", headers=b"{}")
        fact = ending("RequestCompleted", self.run)
        return await self.world.scripts.end(self.run, guard, owner, place, last, fact)

    async def field(self, name: str) -> str:
        return (await self.world.runs.fields(self.run)).get(name, b"").decode()

    async def state(self) -> str:
        return await self.field("state")

    async def kinds(self) -> list[str]:
        """The kinds of the facts so far."""
        return [fields[b"kind"].decode() for _, fields in await self.world.entries(self.facts)]

    async def snapshot(self) -> dict[str, object]:
        """Everything that is left of the run, without times."""
        fields = {k: v for k, v in (await self.world.runs.fields(self.run)).items() if not _timed(k)}
        live, p = await self.world.live(self.p), self.p
        return {
            "hash": fields,
            "hash expires": await self.world.expires(self.hash),
            "reply": [(id, dict(f)) for id, f in await self.world.entries(self.reply)],
            "reply expires": await self.world.expires(self.reply),
            "facts": sorted({f[b"e"] for _, f in await self.world.entries(self.facts)}),
            "live": sorted(live),
            "bytes": await self.world.kept_bytes(p),
            "aside": await self.world.aside_bytes(p),
            "body": await self.world.body(self.run),
            "kept": await self.world.runs.kept_body(self.run),
            "kept expires": await self.world.expires(kept_key(self.run)),
            "lanes": await self.world.lanes(p),
            "cleared": sorted({f[b"e"] for _, f in await self.world.entries(self.lane)}),
            "cleared pending": len(await self.world.pending(self.lane, "router")),
        }


def _timed(name: str) -> bool:
    return name.startswith("t:") or name in ("deadline", "entry")


def orders(items: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Every order of them."""
    import itertools

    return list(itertools.permutations(items))
