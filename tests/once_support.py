"""Requests under an Idempotency-Key, for tests: a door over a world with an archive, and what happens to their runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.door import Bounds, StreamDoor
from runtime.keeping import Keeping
from runtime.scripts import Scripts
from schemas.errors import Code, Failure
from schemas.events import RequestCompleted, Usage
from schemas.frames import DATA, END, Frame, pack
from schemas.ports import Mark, NewRun, Once, Watch
from schemas.records import ArchiveRecord
from storage.memory import MemoryArchive, MemoryRequests
from tests.engine_support import request, seals
from tests.run_support import CHANCE, CLOCK, FAMILIES, PARTITIONS, Hands, World, answer, store_frame

DAY_MS = 86_400_000
OURS = Once(marks=(Mark("name", "asked"),), spread=2, tenant="org")
BROKEN = Failure(code=Code.upstream_error.value, message="broken")


@dataclass
class Place:
    """A door over a world, and the archive behind it."""

    world: World
    door: StreamDoor
    archive: MemoryArchive
    requests: MemoryRequests

    def tight(self, **bounds: int) -> StreamDoor:
        """A door that takes less in."""
        scripts, runs = self.world.scripts, self.world.runs
        return StreamDoor("tight", PARTITIONS, scripts, runs, seals("ingress"), CLOCK, CHANCE, Bounds(**bounds))

    def another_door(self, archive: MemoryArchive) -> StreamDoor:
        scripts, runs = self.world.scripts, self.world.runs
        return StreamDoor("two", PARTITIONS, scripts, runs, seals("ingress"), CLOCK, CHANCE, Bounds(), archive)

    def new(self, once: Once | None = OURS, keep_ms: int = DAY_MS, **changes: Any) -> NewRun:
        accepted = request(self.door.mint(), keep_ms=keep_ms, **changes)
        return NewRun(accepted=accepted, body=b"{}", deadline_ms=60_000, once=once)

    async def ask(self, once: Once = OURS, **changes: Any) -> Watch:
        return await self.door.accept(self.new(once, **changes))

    async def run(self, watch: Watch) -> Hands:
        """The run is cleared and claimed by a router."""
        hands = Hands(self.world, watch.run)
        await hands.announce()
        for family in FAMILIES:
            await self.world.scripts.verdict(answer(watch.run, family))
        entry = (await hands.read(hands.lane, "router", "r1"))[0]
        assert (await self.world.scripts.claim(watch.run, hands.lane, entry, "r1", "r1:a")).state == "ok"
        return hands

    async def say(self, watch: Watch, text: bytes = b"data: a\n\n") -> None:
        """The router flushes one event."""
        await store_frame(
            self.world.scripts, watch.run, "r1:a", 1, seals("router").frame(watch.run, 1, 1, DATA, 1, text, {})
        )

    async def end(self, watch: Watch, said: int, fact: Any, kind: str = END, payload: bytes = b"data: end\n\n") -> None:
        """The router ends the run after `said` events."""
        frame = seals("router").frame(watch.run, 1, said + 1, kind, 1, payload, {})
        ending = seals("router").ending(fact, 1)
        assert await self.world.scripts.end(watch.run, "owner", "r1:a", f"1-{said}", frame, ending) == "ok"

    async def complete(self, watch: Watch) -> None:
        await self.run(watch)
        await self.say(watch)
        await self.end(watch, 1, RequestCompleted(run=watch.run, model="m", endpoint="e", usage=Usage()))

    async def keep(self, watch: Watch, once: Once = OURS) -> None:
        """What group `archive` does of it."""
        keeping = Keeping(self.world.runs, self.world.scripts, seals("audit"))
        frames, mark, now = pack(await keeping.frames(watch.run)), once.marks[0], CLOCK.now_ms()
        kept = ArchiveRecord(
            run=watch.run,
            tenant=once.tenant,
            key_id="k1",
            once=mark.name,
            asked=mark.asked,
            stream=True,
            frames=frames,
            ended_ms=now,
            expires_ms=now + DAY_MS,
        )
        await self.archive.keep([kept], now)
        await keeping.let_go(watch.run)

    async def lose_frames(self, watch: Watch) -> None:
        """Time goes by: Redis forgets the run, not the key."""
        hands = Hands(self.world, watch.run)
        await self.world.forget(hands.hash)
        await self.world.forget(hands.reply)


def make_place(world: World, scripts: Scripts | None = None) -> Place:
    """A door in a world where nobody has asked before. scripts: the door's own way to the server."""
    requests = MemoryRequests()
    archive, hands = MemoryArchive(requests), seals("ingress")
    ways = scripts or world.scripts
    door = StreamDoor("door", PARTITIONS, ways, world.runs, hands, CLOCK, CHANCE, Bounds(), archive)
    return Place(world, door, archive, requests)


async def read(watch: Watch) -> list[Frame]:
    frames: list[Frame] = []
    while not frames or not frames[-1].terminal:
        frame = await watch.next(10)
        assert frame is not None
        frames.append(frame)
    return frames
