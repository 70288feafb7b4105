"""The scripts of a group over a MemoryServer: who holds which entries, and what becomes of those nobody can handle.

The Lua files are the original: each method here follows the file of its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.memory.server import Group, Held, id_of
from runtime.memory.steps import Steps, Values, place_of
from runtime.names import starts_key, stream_prefix
from runtime.scripts import DeadLetter, SealedFrame, Taken
from runtime.scripts import Held as HeldEntry


class MemoryEntries(Steps):
    """Twin of runtime.scripts.RedisScripts, as far as groups are concerned."""

    async def beat(self, stream: str, group: str, consumer: str, held: Sequence[HeldEntry]) -> list[str]:
        await self._server.turn()
        return [self._beat(stream, self._group(stream, group), consumer, item) for item in held]

    def _beat(self, stream: str, group: Group, consumer: str, item: HeldEntry) -> str:
        if group.holder(id_of(item.entry)) != consumer:
            return "lost"
        state = "ok"
        if item.owner:
            run = self._hash(item.run) or {}
            if run.get("owner") != item.owner.encode() or run.get("state") != b"running":
                return "lost"
            state = "cancel" if "cancel" in run else "ok"
        self._claim_again(stream, group, item.entry, self._server.now())
        return state

    def _claim_again(self, stream: str, group: Group, entry: str, since_ms: int) -> None:
        """XCLAIM by the holder: sets the idle time, or drops an entry that was deleted under it."""
        if id_of(entry) in self._server.streams[stream].entries:
            group.pending[id_of(entry)].since_ms = since_ms
        else:
            del group.pending[id_of(entry)]

    async def take(self, stream: str, group: str, consumer: str, idle_ms: int, entry: str) -> Taken:
        await self._server.turn()
        found, id = self._group(stream, group), id_of(entry)
        row = found.pending.get(id)
        if row is None or row.since_ms > self._server.now() - idle_ms:
            return Taken(state="idle_no_more")
        counts = self._server.starts.setdefault(starts_key(stream, group), {})
        fields = self._server.streams[stream].entries.get(id)
        if fields is None:
            counts.pop(entry, None)
            del found.pending[id]
            return Taken(state="missing")
        found.consumers.add(consumer)
        found.pending[id] = Held(consumer, self._server.now())
        counts[entry] = counts.get(entry, 0) + 1
        return Taken(state="taken", starts=counts[entry], fields=dict(fields))

    async def release(
        self, stream: str, group: str, consumer: str, idle_ms: int, entries: Sequence[tuple[str, int]]
    ) -> int:
        await self._server.turn()
        found, given = self._group(stream, group), 0
        counts = self._server.starts.setdefault(starts_key(stream, group), {})
        for entry, starts in entries:
            if found.holder(id_of(entry)) != consumer:
                continue
            if starts:
                counts[entry] = starts
            else:
                counts.pop(entry, None)
            self._claim_again(stream, found, entry, self._server.now() - idle_ms)
            given += 1
        return given

    async def dead(self, letter: DeadLetter) -> str:
        await self._server.turn()
        s, p = self._server, stream_prefix(letter.stream)
        if self._group(letter.stream, letter.group).holder(id_of(letter.entry)) != letter.consumer:
            return "lost"
        said: Values = {"stream": letter.stream, "group": letter.group, "entry": letter.entry, "starts": letter.starts}
        s.add(f"{p}dlq", {**said, "reason": letter.reason, "run": letter.run, "d": letter.sealed})
        run = self._hash(letter.run) if letter.run else None
        if run is not None and letter.ending and run["state"] != b"ended" and place_of(run) == letter.place:
            mine = (
                run.pop("entry", b"") if run.get("entry") == letter.entry.encode() else b""
            )  # acknowledged below, last
            frame = SealedFrame(kind="error", events=1, payload=letter.frame)
            self._finish(p.rstrip(":"), letter.run, run, frame, letter.ending)
            run.update({"entry": mine} if mine else {})
        if ":cleared:" in letter.stream:
            self._drop_entry(letter.stream, letter.entry)
        else:
            s.starts.get(starts_key(letter.stream, letter.group), {}).pop(letter.entry, None)
            s.ack(letter.stream, letter.group, letter.entry)
        return "dead"

    async def trim(self, stream: str, groups: Sequence[str]) -> int:
        await self._server.turn()
        found = self._server.streams.get(stream)
        if found is None or not found.groups or any(name not in found.groups for name in groups):
            return 0
        least = min(min(group.pending, default=(group.last[0], group.last[1] + 1)) for group in found.groups.values())
        gone = [id for id in found.entries if id < least]
        for id in gone:
            del found.entries[id]
        return len(gone)

    async def retire(self, stream: str, group: str, consumer: str) -> bool:
        await self._server.turn()
        found = self._group(stream, group)
        if any(row.consumer == consumer for row in found.pending.values()):
            return False
        found.consumers.discard(consumer)
        return True

    async def disown(self, stream: str, group: str, consumer: str, idle_ms: int) -> int:
        await self._server.turn()
        pending, entries = self._group(stream, group).pending, self._server.streams[stream].entries
        held = [id for id, row in pending.items() if row.consumer == consumer]
        for id in held:
            if id in entries:
                pending[id].since_ms = self._server.now() - idle_ms
            else:
                del pending[id]  # what is claimed and no longer there is pending no more
        return len(held)
