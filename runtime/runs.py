"""Reading a run: its hash, its sealed body, its frames. The twin is runtime.memory.MemoryRuns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from base.ids import is_run_id
from runtime.names import kept_key, once_key, prefix_of
from runtime.scripts import source
from schemas.envelope import decode
from schemas.errors import DecodeError, Failure, UnknownVersion
from schemas.events import RequestAccepted, RequestFailed, Usage
from schemas.frames import StoredFrame
from schemas.ports import Redis


class Runs(Protocol):
    """What can be read of a run without changing it."""

    async def fields(self, run: str) -> Mapping[str, bytes]:
        """The run's hash; empty when unknown."""
        ...

    async def checking_body(self, run: str) -> bytes | None:
        """The sealed body, or None once the run has ended."""
        ...

    async def kept_body(self, run: str) -> bytes | None:
        """The sealed body of a run that has ended, where it is to be kept and the archive has it not yet."""
        ...

    async def frames(self, run: str, epoch: int, after: int, count: int) -> Sequence[StoredFrame]:
        """Frames behind the place `<epoch>-<after>` in order; (0, 0) = from the start."""
        ...

    async def places(self, runs: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        """Where each run stands: (epoch, last sequence), None for one that is gone. Ask for hundreds at
        once, not for thousands: a script holds the server up."""
        ...

    async def of_once(self, p: str, names: Sequence[str]) -> Sequence[str]:
        """The runs that an Idempotency-Key has, by its names in the partition with that prefix."""
        ...


class RedisRuns:
    """Runs on a server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def fields(self, run: str) -> Mapping[str, bytes]:
        if not is_run_id(run):
            return {}
        found = await self._redis.execute("HGETALL", f"{prefix_of(run)}:run:{run}")
        return {name.decode(): value for name, value in (found or {}).items()}

    async def checking_body(self, run: str) -> bytes | None:
        found: bytes | None = await self._redis.execute("GET", f"{prefix_of(run)}:body:{run}")
        return found

    async def kept_body(self, run: str) -> bytes | None:
        found: bytes | None = await self._redis.execute("GET", kept_key(run))
        return found

    async def frames(self, run: str, epoch: int, after: int, count: int) -> Sequence[StoredFrame]:
        start = f"({epoch}-{after}" if epoch or after else "-"
        key = f"{prefix_of(run)}:reply:{run}"
        rows = await self._redis.execute("XRANGE", key, start, "+", "COUNT", count)
        return [_stored(entry.decode(), flat) for entry, flat in rows]

    async def places(self, runs: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        """One script per partition."""
        shares: dict[str, list[str]] = {}
        for run in runs:
            shares.setdefault(prefix_of(run), []).append(run)
        found: dict[str, tuple[int, int] | None] = {}
        for p, mine in shares.items():
            told = await self._redis.script(source("places"), [f"{p}:run:{run}" for run in mine], ())
            found |= {run: _place(text) for run, text in zip(mine, told, strict=True)}
        return found

    async def of_once(self, p: str, names: Sequence[str]) -> Sequence[str]:
        told = [await self._redis.execute("HGET", once_key(p, name), "run") for name in names]
        return [run.decode() for run in told if run]


def _place(text: bytes) -> tuple[int, int] | None:
    epoch, _, sequence = text.partition(b"-")
    return (int(epoch), int(sequence)) if text else None


def cut_short(run: str, fields: Mapping[str, bytes], failure: Failure) -> RequestFailed:
    """The terminal fact of a run that somebody else than its owner ends: billed, as an estimate, for the events in its
    stream that carry what was generated. An older owner did not count them: then for all but three, since an engine
    may name the speaker, say why it stopped and tell its usage in events of their own."""
    sequence = int(fields["seq"])
    said = int(fields.get("said", max(sequence - 3, 0)))
    usage, model = None, ""
    try:
        accepted: RequestAccepted = decode(fields.get("a", b""))[1]
    except (DecodeError, UnknownVersion):
        pass
    else:
        model = accepted.model
        if sequence:
            usage = Usage(prompt_tokens=accepted.prompt_tokens, completion_tokens=said, estimated=True)
    return RequestFailed(run=run, failure=failure, model=model, usage=usage, events=sequence + 1)


def _stored(entry: str, flat: Sequence[bytes]) -> StoredFrame:
    fields = {flat[i]: flat[i + 1] for i in range(0, len(flat), 2)}
    epoch, _, sequence = entry.partition("-")
    return StoredFrame(
        epoch=int(epoch),
        sequence=int(sequence),
        kind=fields[b"k"].decode(),
        events=int(fields[b"n"]),
        payload=fields[b"d"],
        headers=fields.get(b"h", b""),
    )
