"""The operator's hands on dead letters: list, show, replay, purge. A letter's id is `<partition>:<entry>`;
the letters of streams outside a partition stand under `<stream>:<entry>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from base.crypto import CryptoError
from runtime.names import prefix, stream_prefix
from runtime.seals import Seals
from schemas.ports import Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter. fields: the entry as it was, opened on `show` only."""

    id: str
    stream: str
    group: str
    entry: str
    starts: int
    reason: str
    run: str
    fields: dict[str, str]


class DeadLetters:
    """Dead letters of every partition and of the streams beside them."""

    def __init__(self, redis: Redis, seals: Seals, partitions: int, beside: Sequence[str] = ("commands",)) -> None:
        self._redis, self._seals = redis, seals
        self._keys = {str(n): f"{prefix(n)}:dlq" for n in range(partitions)}
        self._keys.update({name: f"{stream_prefix(name)}dlq" for name in beside})

    async def list(self, after: str = "", count: int = 100) -> Sequence[Letter]:
        """Newest first over all partitions, at most `count`; `after` = only older ones of the same partition."""
        found: list[Letter] = []
        where, _, entry = after.partition(":")
        for name, key in self._keys.items():
            top = f"({entry}" if after and name == where else "+"
            rows = await self._redis.execute("XREVRANGE", key, top, "-", "COUNT", count)
            found += [_letter(name, row) for row in rows]
        return sorted(found, key=lambda letter: _order(letter.id), reverse=True)[:count]

    async def show(self, id: str) -> Letter | None:
        """One letter with its entry opened, or None."""
        row = await self._row(id)
        if row is None:
            return None
        letter, fields = _letter(id.partition(":")[0], row), _fields(row)
        try:
            opened = self._seals.open_letter(fields[b"d"], letter.entry)
            shown = {name: value.decode("utf8", "replace") for name, value in opened.items()}
        except CryptoError as error:
            shown = {"error": str(error)}
        return Letter(**{**_asdict(letter), "fields": shown})

    async def replay(self, id: str) -> str | None:
        """Put the entry back on its stream as a new one and drop the letter; the new entry's id, or None.

        The run of a letter has ended with it, so replaying an entry of `requests` only repeats its handling: useful
        for facts and commands."""
        row = await self._row(id)
        if row is None:
            return None
        letter = _letter(id.partition(":")[0], row)
        opened = self._seals.open_letter(_fields(row)[b"d"], letter.entry)
        parts = [part for name, value in opened.items() for part in (name.encode(), value)]
        entry = await self._redis.execute("XADD", letter.stream, "*", *parts)
        await self.purge([id])
        return str(entry.decode())

    async def purge(self, ids: Sequence[str]) -> int:
        """Drop letters for good; how many there were."""
        gone = 0
        for id in ids:
            name, _, entry = id.partition(":")
            if name in self._keys:
                gone += int(await self._redis.execute("XDEL", self._keys[name], entry))
        return gone

    async def _row(self, id: str) -> Any:
        name, _, entry = id.partition(":")
        if name not in self._keys:
            return None
        rows = await self._redis.execute("XRANGE", self._keys[name], entry, entry)
        return rows[0] if rows else None


def _order(id: str) -> tuple[int, int]:
    milliseconds, _, number = id.rpartition(":")[2].partition("-")
    return int(milliseconds), int(number)


def _fields(row: Any) -> dict[bytes, bytes]:
    return {row[1][i]: row[1][i + 1] for i in range(0, len(row[1]), 2)}


def _asdict(letter: Letter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in Letter.__slots__}


def _letter(name: str, row: Any) -> Letter:
    fields = {k.decode(): v.decode("utf8", "replace") for k, v in _fields(row).items() if k != b"d"}
    return Letter(
        id=f"{name}:{row[0].decode()}",
        stream=fields["stream"],
        group=fields["group"],
        entry=fields["entry"],
        starts=int(fields["starts"]),
        reason=fields["reason"],
        run=fields["run"],
        fields={},
    )
