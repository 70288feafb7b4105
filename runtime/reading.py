"""What an engine reads next, and the read that is under way: one XREADGROUP over the streams that have room."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from base.clock import Clock
from runtime import faults
from runtime.group_spec import Spec, share
from runtime.groups import Groups, Row
from runtime.names import place_of
from runtime.places import Places
from schemas.errors import HeadraceError

_UNBLOCK_S = 0.02  # between two attempts to end a read


@dataclass(slots=True)
class Reading:
    """The reads of one consumer, one after the other. ensured: streams whose group exists, as far as is known.
    present: what the read under way waits for, () when there is none. shared: entries come by other ways
    too, so that a read leaves half of the places to them."""

    spec: Spec
    streams: Callable[[], Sequence[str]]
    groups: Groups
    consumer: str
    clock: Clock
    places: Places | None
    ensured: set[str] = field(default_factory=set)
    present: Sequence[str] = ()
    shared: bool = False
    _each: int = 0  # entries of each stream that the present read may bring
    _turn: int = 0

    async def ensure(self) -> None:
        """Create the groups that are missing."""
        for stream in self.streams():
            if stream not in self.ensured:
                await self.groups.ensure(stream, self.spec.group)
                self.ensured.add(stream)

    async def read(self, count: int) -> Sequence[Row] | None:
        """Up to `count` new entries that the group wants, waited for; None at once when no stream may be read.
        GroupLost."""
        await self.ensure()
        able, most = self._able()
        if not able:
            return None
        streams, each, block = share(able, count, self._turn)
        self._turn += 1
        self.present, self._each = list(streams), min(each, most)
        try:
            rows = await self.groups.read(streams, self.spec.group, self.consumer, self._each, block)
        finally:
            self.present = ()
        return await self._sift(rows, self.spec.marked.encode()) if self.spec.marked else rows

    async def _sift(self, rows: Sequence[Row], mark: bytes) -> Sequence[Row]:
        """The rows with the mark. The others are acknowledged as they are, opened by nobody; what cannot be comes again
        and goes the way of all."""
        wanted = [row for row in rows if mark in row.fields]
        others: dict[str, list[tuple[str, bool]]] = {}
        for row in rows:
            if mark not in row.fields:
                others.setdefault(row.stream, []).append((row.entry, False))
        if others:
            for point in ("P1", "P2", "P3"):
                faults.hit(self.spec.group, point)
            with contextlib.suppress(HeadraceError):
                for stream, entries in others.items():
                    await self.groups.ack(stream, self.spec.group, entries)
            faults.hit(self.spec.group, "P4")
        if rows and not wanted:
            await self.clock.sleep(self.spec.pace_ms / 1000)
        return wanted

    @property
    def asked(self) -> int:
        """How many entries the present read may bring."""
        return self._each * len(self.present)

    def awaited(self, pool: str) -> int:
        """How many entries of a pool's lanes the present read may bring."""
        return sum(self._each for stream in self.present if place_of(stream)[0] == pool)

    def is_stale(self) -> bool:
        """Whether a stream may be read that the present read does not wait for, or the other way round."""
        able = self._able()[0]
        return any(stream not in self.present for stream in able) or any(stream not in able for stream in self.present)

    async def end(self, present: Sequence[str]) -> None:
        """Unblock until that read has ended: one that was only just sent may come after the first."""
        while self.present is present:
            await self.groups.unblock()
            await self.clock.sleep(_UNBLOCK_S)

    def _able(self) -> tuple[Sequence[str], int]:
        """The streams that may be read now, and how many entries of each."""
        streams = self.streams()
        if self.places is None:
            return streams, self.spec.batch
        able, most = self.places.able(streams)
        return able, max(1, most // 2) if self.shared else most
