"""A client that is gone, or was told no, leaves no run behind that goes on for nobody."""

from __future__ import annotations

from typing import TypeVar

import pytest
from msgspec.structs import replace

from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.door import Bounds, StreamDoor
from runtime.memory import MemoryRuns, MemoryScripts, MemoryServer
from runtime.names import prefix
from runtime.scripts import Watched
from schemas.errors import Unavailable
from schemas.ports import Mark, NewRun, Once
from tests.engine_support import request, seals
from tests.run_support import CHANCE, CLOCK, RETENTION_MS, answer, until

T = TypeVar("T")


class LostReplies(MemoryScripts):
    """Applies what it is told, then loses the reply, as a connection that breaks does."""

    losing = False

    async def accept(self, new: Acceptance) -> tuple[bool, int]:
        return await self._lose(await super().accept(new))

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        seen = await super().accept_once(new, repeat)
        return await self._lose(seen) if seen.state == "new" else seen

    async def watch(self, run: str, watcher: str, *, add: bool) -> Watched:
        seen = await super().watch(run, watcher, add=add)
        return await self._lose(seen) if add else seen

    async def _lose(self, reply: T) -> T:
        if self.losing:
            raise Unavailable("the connection to Redis was lost")
        return reply


def _door(server: MemoryServer) -> tuple[StreamDoor, LostReplies]:
    scripts = LostReplies(server, RETENTION_MS)
    return StreamDoor("door", 4, scripts, MemoryRuns(server), seals("ingress"), CLOCK, CHANCE, Bounds()), scripts


def _new(door: StreamDoor, policy: str = "cancel") -> NewRun:
    return NewRun(accepted=request(door.mint(), on_disconnect=policy), body=b"{}", deadline_ms=60_000)


def _ended(server: MemoryServer) -> bool:
    return [run["outcome"] for run in server.hashes.values() if run.get("state") == b"ended"] == [b"cancelled"]


async def test_client_that_left_while_redis_was_away_is_signed_off_when_it_is_back() -> None:
    server = MemoryServer(CLOCK)
    door, scripts = _door(server)
    watch = await door.accept(_new(door))
    await scripts.verdict(answer(watch.run, "authorization"))
    server.away = True
    await watch.leave()
    server.away = False
    await until(lambda: _ended(server))


@pytest.mark.parametrize("policy", ["cancel", "finish", "grace:60"])
async def test_run_whose_acceptance_was_not_answered_ends_since_its_client_was_told_no(policy: str) -> None:
    server = MemoryServer(CLOCK)
    door, scripts = _door(server)
    scripts.losing = True
    with pytest.raises(Unavailable):
        await door.accept(_new(door, policy))
    await until(lambda: _ended(server))


async def test_a_key_whose_acceptance_was_not_answered_has_one_run_when_it_comes_again() -> None:
    server = MemoryServer(CLOCK)
    door, scripts = _door(server)
    accepted = replace(_new(door, "grace:60").accepted, keep_ms=60_000)
    new = replace(_new(door), accepted=accepted, once=Once(marks=(Mark("name", "asked"),), spread=0, tenant="org"))
    scripts.losing = True
    with pytest.raises(Unavailable):
        await door.accept(new)
    scripts.losing = False
    await until(lambda: _ended(server))
    again = await door.accept(new)
    assert not again.replayed and len(server.live[prefix(0)]) == 1


async def test_reader_whose_attachment_was_not_answered_does_not_keep_the_run() -> None:
    server = MemoryServer(CLOCK)
    door, scripts = _door(server)
    first = await door.accept(_new(door))
    await scripts.verdict(answer(first.run, "authorization"))
    scripts.losing = True
    with pytest.raises(Unavailable):
        await door.attach(first.run, 0)
    await first.leave()
    await until(lambda: _ended(server))
