"""The scripts of a run and of a group, as typed calls. Every state change of a run is one of these, run by the server
in one step; each may be run again after any failure.

    accept -> verdict x families -> (queued) claim -> flush ... -> end
    cancel, watch, end(guard) from outside; beat, take, release, dead, trim, retire for the groups

`Scripts` is the Protocol; RedisScripts speaks Lua to a server, runtime.memory.MemoryScripts is the twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Protocol

import msgspec

from base.replies import pairs
from runtime.acceptance import Acceptance, Accepted, Repeat, args_of, keys_of, read
from runtime.claims import Claim, Moved, Taker, claim_of, moved_of
from runtime.names import kept_key, prefix_of, starts_key, stream_prefix
from schemas.envelope import Signed
from schemas.errors import HeadraceError
from schemas.outcomes import Delivery
from schemas.ports import Redis

#: Scripts that must run even when memory is full: they free it or only read.
_ALLOW_OOM = frozenset(
    {
        "end",
        "cancel",
        "watch",
        "beat",
        "take",
        "release",
        "dead",
        "trim",
        "retire",
        "disown",
        "announce",
        "regate",
        "tenure",
        "archived",
        "forget",
        "places",
        "pull",
    }
)
#: What `archived` says.
_LET_GO = ("", "let_go", "deleted")
#: What stands before every script, in this order.
HEADS = ("lib", "gate", "finish")


@lru_cache(maxsize=64)
def source(name: str) -> str:
    """The whole text of a script: shebang with its flags, shared head, body."""
    folder = resources.files("runtime") / "lua"
    head = "#!lua flags=allow-oom\n" if name in _ALLOW_OOM else "#!lua\n"
    return head + "".join((folder / f"{part}.lua").read_text() for part in (*HEADS, name))


class SealedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame as it is stored: payload sealed for its place, headers as JSON. said: how many events of the run carried
    what was generated, this frame's too."""

    kind: str
    events: int
    payload: bytes
    headers: bytes = b""
    said: int = 0


class Write(msgspec.Struct, frozen=True):
    """A data frame, whose it is and its place: the owner's epoch and the frame's last sequence."""

    run: str
    owner: str
    epoch: int
    last: int
    frame: SealedFrame


def head_of(write: Write) -> str:
    """Its head in a push of many frames (see names.MANY)."""
    f = write.frame
    return f"{write.run} {write.epoch} {write.last} {f.events} {f.kind} {len(f.headers)} {len(f.payload)}"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What ends a run: the terminal fact, signed. outcome: completed | failed | refused | cancelled. tokens: what its
    tenant is charged at the gate, None = what was expected."""

    kind: str
    signed: Signed
    outcome: str
    tokens: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One family's verdict as the script takes it. stored b"" with outcome "missing" = it never came (fail open).
    weight, cost (tokens, expected) and priority: its place at the gate. asked: the delivery that it answers, for a
    router in this process."""

    run: str
    family: str
    entry: str
    outcome: str
    stored: bytes
    pool: str = ""
    lane: str = ""
    tenant: str = ""
    policy: str = ""
    weight: int = 1
    cost: int = 1
    priority: int = 0
    frame: bytes = b""
    headers: bytes = b""
    ending: Ending | None = None
    asked: Delivery | None = None


class Said(msgspec.Struct, frozen=True):
    """What families answer about one run in one step. taker: gets the next entry of the lane that the run is cleared
    into, where that is one of its pool."""

    answers: Sequence[Answer]
    taker: Taker | None = None

    @property
    def run(self) -> str:
        return self.answers[0].run


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that a consumer works on; run and owner are set for claimed runs."""

    entry: str
    run: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """state: idle_no_more | missing | taken. starts counts this start."""

    state: str
    starts: int = 0
    fields: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An entry that could not be handled. frame and ending end its run when `run` is set."""

    stream: str
    group: str
    consumer: str
    entry: str
    starts: int
    sealed: bytes
    reason: str
    run: str = ""
    place: str = ""
    frame: bytes = b""
    ending: Ending | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A router's place among the routers of a partition, from 0 (-1 = none), how many they are, and how many runs its
    announcement let in."""

    place: int
    routers: int
    admitted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the watch script saw. state gone = unknown or expired. policy: what the last one's going means; undecided =
    authorization has not said it yet."""

    state: str
    watchers: int = 0
    policy: str = "cancel"
    sequence: int = 0
    epoch: int = 0


class Scripts(Protocol):
    """Every step of delivery that must be atomic. All raise Unavailable when the server is away or refuses writes."""

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        """(accepted, live runs now). False = over the bound."""
        ...

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        """Accept it, unless its Idempotency-Key has a run."""
        ...

    async def archived(self, run: str) -> str:
        """The archive has the answer: frames and state go as soon as those of any other run. let_go | deleted (by its
        client: nobody is to keep it) | "" = not here."""
        ...

    async def forget(self, run: str) -> bool:
        """A client deletes the answer of an ended run. False = it has not ended, or is not here."""
        ...

    async def verdict(self, answer: Answer) -> tuple[bool, str]:
        """(moved the run, its state now: checking | queued | running | ended | gone)."""
        ...

    async def verdicts(self, said: Sequence[Said]) -> list[Moved | HeadraceError]:
        """The same about some runs of one partition, each a step of its own: what befalls one touches no other."""
        ...

    async def claim(self, run: str, stream: str, entry: str, consumer: str, owner: str) -> Claim: ...

    async def flush(self, writes: Sequence[Write]) -> list[str]:
        """Of runs of one partition, at most one of each: ok | cancel | lost | gap | expired | error <text>."""
        ...

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        """ok | lost | ended. guard: owner | state | unwatched. place: `epoch-sequence` before the frame."""
        ...

    async def cancel(self, run: str, by: str, *, unwatched: bool = False) -> str:
        """flagged | watched | checking | queued | ended | gone."""
        ...

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched: ...

    async def beat(self, stream: str, group: str, consumer: str, held: Sequence[Held]) -> list[str]:
        """ok | lost | cancel, one per held entry."""
        ...

    async def take(self, stream: str, group: str, consumer: str, idle_ms: int, entry: str) -> Taken: ...

    async def release(
        self, stream: str, group: str, consumer: str, idle_ms: int, entries: Sequence[tuple[str, int]]
    ) -> int:
        """Give entries back untried, each with the starts that stay counted; how many were still ours."""
        ...

    async def dead(self, letter: DeadLetter) -> str:
        """dead | lost."""
        ...

    async def trim(self, stream: str, groups: Sequence[str]) -> int: ...

    async def retire(self, stream: str, group: str, consumer: str) -> bool: ...

    async def disown(self, stream: str, group: str, consumer: str, idle_ms: int) -> int:
        """What a dead consumer holds may be taken over at once, by whoever's limit is idle_ms; how many entries."""
        ...

    async def tenure(self, p: str) -> float:
        """Seconds for which the server that holds `p` (a partition's prefix, or a stream's) is known to be in charge:
        from 0 again after a restart and after a failover."""
        ...

    async def announce(self, p: str, router: str, holds_ms: int, slots: Mapping[str, int], most: int) -> Seat:
        """Slots by pool, for holds_ms (0 = the router leaves); at most `most` waiting runs are let in."""
        ...

    async def regate(self, run: str) -> bool:
        """Put a cleared run back to the gate that is neither there nor in its lane; whether it was such a one."""
        ...


class RedisScripts:
    """The scripts on a server. retention_ms: how long frames and state of an ended run stay readable."""

    def __init__(self, redis: Redis, retention_ms: int) -> None:
        self._redis = redis
        self.retention_ms = retention_ms

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        reply = await self._redis.script(source("accept"), keys_of(new), args_of(new))
        return bool(reply[0]), int(reply[1])

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        return read(await self._redis.script(source("accept"), keys_of(new, repeat), args_of(new, repeat)))

    async def archived(self, run: str) -> str:
        reply = await self._redis.script(source("archived"), _kept_keys(run), (self.retention_ms,))
        return _LET_GO[int(reply)]

    async def forget(self, run: str) -> bool:
        return bool(await self._redis.script(source("forget"), _kept_keys(run), ()))

    async def verdict(self, answer: Answer) -> tuple[bool, str]:
        return only(await self.verdicts([Said((answer,))]))[:2]

    async def verdicts(self, said: Sequence[Said]) -> list[Moved | HeadraceError]:
        p = prefix_of(said[0].run)
        keys = [f"{p}:requests"]
        args: list[str | bytes | int] = [p, self.retention_ms]
        for one in said:
            run, taker = one.run, one.taker
            keys.append(f"{p}:run:{run}")
            args += (run, taker.consumer, taker.owner, taker.pool) if taker else (run, "", "", "")
            args.append(len(one.answers))
            for answer in one.answers:
                args += _answer_args(answer)
        return [moved_of(reply) for reply in await self._redis.script(source("verdict"), keys, args)]

    async def claim(self, run: str, stream: str, entry: str, consumer: str, owner: str) -> Claim:
        p = prefix_of(run)
        keys = (f"{p}:run:{run}", f"{p}:body:{run}", stream)
        return claim_of(await self._redis.script(source("claim"), keys, (run, consumer, owner, entry)))

    async def flush(self, writes: Sequence[Write]) -> list[str]:
        p = prefix_of(writes[0].run)
        keys: list[str] = []
        args: list[str | bytes | int] = [p]
        for write in writes:
            last, frame = write.last, write.frame
            keys += _frame_keys(write.run)
            args += (head_of(write), write.owner, f"{write.epoch}-{last}", last)
            args += (frame.events, frame.payload, frame.headers, frame.said)
        return [said.decode() for said in await self._redis.script(source("flush"), keys, args)]

    async def end(self, run: str, guard: str, value: str, place: str, frame: SealedFrame, ending: Ending) -> str:
        p = prefix_of(run)
        reply = await self._redis.script(
            source("end"),
            (f"{p}:run:{run}",),
            (
                p,
                run,
                guard,
                value,
                frame.kind,
                frame.events,
                frame.payload,
                frame.headers,
                *(ending.kind, ending.signed.e, ending.signed.s, ending.outcome),
                self.retention_ms,
                place,
                "" if ending.tokens is None else ending.tokens,
            ),
        )
        return str(reply[0].decode())

    async def cancel(self, run: str, by: str, *, unwatched: bool = False) -> str:
        p = prefix_of(run)
        reply: bytes = await self._redis.script(
            source("cancel"), (f"{p}:run:{run}",), (p, run, by, "1" if unwatched else "")
        )
        return reply.decode()

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched:
        p = prefix_of(run)
        args = ("add" if add else "drop", watcher, p, run)
        reply = await self._redis.script(source("watch"), (f"{p}:run:{run}",), args)
        if reply[0] == b"gone":
            return Watched(state="gone")
        return Watched(
            state=reply[0].decode(),
            watchers=int(reply[1]),
            policy=reply[2].decode(),
            sequence=int(reply[3]),
            epoch=int(reply[4]),
        )

    async def beat(self, stream: str, group: str, consumer: str, held: Sequence[Held]) -> list[str]:
        args: list[str | bytes | int] = [group, consumer, stream.partition(":")[0]]
        for item in held:
            args += (item.entry, item.run, item.owner)
        return [state.decode() for state in await self._redis.script(source("beat"), (stream,), args)]

    async def take(self, stream: str, group: str, consumer: str, idle_ms: int, entry: str) -> Taken:
        reply = await self._redis.script(
            source("take"), (stream, starts_key(stream, group)), (group, consumer, idle_ms, entry)
        )
        if not reply:
            return Taken(state="idle_no_more")
        if reply[0] == b"missing":
            return Taken(state="missing")
        return Taken(state="taken", starts=int(reply[0]), fields=dict(pairs(reply[1:])))

    async def release(
        self, stream: str, group: str, consumer: str, idle_ms: int, entries: Sequence[tuple[str, int]]
    ) -> int:
        args: list[str | bytes | int] = [group, consumer, idle_ms]
        for entry, starts in entries:
            args += (entry, starts)
        return int(await self._redis.script(source("release"), (stream, starts_key(stream, group)), args))

    async def dead(self, letter: DeadLetter) -> str:
        p = stream_prefix(letter.stream)
        fact = letter.ending
        reply: bytes = await self._redis.script(
            source("dead"),
            (letter.stream, starts_key(letter.stream, letter.group), f"{p}dlq"),
            (
                p.rstrip(":"),
                letter.group,
                letter.consumer,
                letter.entry,
                letter.starts,
                letter.sealed,
                letter.reason,
                letter.run,
                letter.frame,
                *((fact.kind, fact.signed.e, fact.signed.s) if fact else ("", "", "")),
                self.retention_ms,
                letter.place,
            ),
        )
        return reply.decode()

    async def trim(self, stream: str, groups: Sequence[str]) -> int:
        return int(await self._redis.script(source("trim"), (stream,), groups))

    async def retire(self, stream: str, group: str, consumer: str) -> bool:
        return bool(await self._redis.script(source("retire"), (stream,), (group, consumer)))

    async def disown(self, stream: str, group: str, consumer: str, idle_ms: int) -> int:
        return int(await self._redis.script(source("disown"), (stream,), (group, consumer, idle_ms)))

    async def tenure(self, p: str) -> float:
        return int(await self._redis.script(source("tenure"), (f"{p}:server",), ())) / 1000

    async def announce(self, p: str, router: str, holds_ms: int, slots: Mapping[str, int], most: int) -> Seat:
        pairs = [part for pair in slots.items() for part in pair]
        reply = await self._redis.script(source("announce"), (f"{p}:routers",), (p, router, holds_ms, most, *pairs))
        return Seat(place=int(reply[0]), routers=int(reply[1]), admitted=int(reply[2]))

    async def regate(self, run: str) -> bool:
        p = prefix_of(run)
        return bool(await self._redis.script(source("regate"), (f"{p}:run:{run}",), (p, run)))


def only(moved: Sequence[Moved | HeadraceError]) -> Moved:
    """Of verdicts about one run; raises what they failed for."""
    (one,) = moved
    if isinstance(one, HeadraceError):
        raise one
    return one


@lru_cache(maxsize=4096)
def _frame_keys(run: str) -> tuple[str, str]:
    p = prefix_of(run)
    return f"{p}:run:{run}", f"{p}:reply:{run}"


def _kept_keys(run: str) -> tuple[str, str, str]:
    p = prefix_of(run)
    return f"{p}:run:{run}", f"{p}:reply:{run}", kept_key(run)


def _answer_args(answer: Answer) -> tuple[str | bytes | int, ...]:
    """One family's part of the verdict script's ARGV."""
    fact = answer.ending
    return (
        *(answer.family, answer.entry, answer.outcome, answer.stored),
        *(answer.pool, answer.lane, answer.tenant),
        *(answer.frame, answer.headers),
        *((fact.kind, fact.signed.e, fact.signed.s) if fact else ("", "", "")),
        *(answer.policy, answer.weight, answer.cost, answer.priority),
    )
