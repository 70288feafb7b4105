"""Where the cases are played: a Headrace in one of its layouts, two engines, and what tells a strike's effect.

A take-over is measured from outside for every group alike: from the strike until the group has finished everything
that lay in its streams when it was struck.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import redis.asyncio as redis

from bench.faults.bad_engine import BadEngine
from bench.faults.load import Load
from bench.faults.waiting import LOOK_S, until
from console.stack import room_of
from runtime.names import prefix
from runtime.topology import Topology
from tests.e2e.house import Engine, House, command

#: Something dies every second here, and a backlog that slowly drained would be refused (most_wait): that is the table
#: of --overload. This one asks what becomes of what is accepted, so everything is.
SETTINGS = """
server: {deadline: 60}
runs: {most_wait: 0}
guardrails: {families: {persons: {enabled: true}}}
router: {idle_timeout_s: 2, first_byte_timeout_s: 3, connect_timeout_s: 1, retry_floor: 100000,
  breaker: {failures: 100}}
"""
SERVERS = ("valkey", "postgres")
#: Seconds after which something that was struck must have recovered.
_RECOVERY_S = 120.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What all cases share. fault: the file that every crash point looks at; processes: the rooms of each process."""

    house: House
    engine: Engine
    bad: BadEngine
    key: str
    topology: Topology
    fault: Path
    valkey_url: str
    processes: tuple[frozenset[str], ...]

    @asynccontextmanager
    async def valkey(self) -> AsyncIterator[Any]:
        """A connection for a moment: the server may be another one the next time."""
        async with redis.Redis.from_url(self.valkey_url, socket_timeout=5) as client:
            yield client

    @property
    def groups(self) -> list[str]:
        """Every consumer group of streams.yaml, in its order."""
        return [group for stream in self.topology.streams.values() for group in stream.groups]

    def process_of(self, room: str) -> frozenset[str]:
        """The rooms that live and die with this one."""
        return next((rooms for rooms in self.processes if room in rooms), frozenset({room}))

    def idle_s(self, group: str) -> float:
        """Seconds after which a silent consumer of the group is robbed."""
        return self.topology.streams[self.topology.group_stream(group)].groups[group].idle_limit / 1000

    async def streams(self, client: Any, group: str) -> list[str]:
        """The streams that the group reads, as keys."""
        name = self.topology.group_stream(group)
        if name == "cleared":
            return [key.decode() for key in await client.smembers(f"{prefix(0)}:lanes")]
        return [key for stream, key, _ in self.topology.keys(1) if stream == name]

    async def mark(self, group: str) -> dict[str, str]:
        """Each stream of the group with its newest entry."""
        found = {}
        async with self.valkey() as client:
            for key in await self.streams(client, group):
                if await client.exists(key):
                    found[key] = (await client.xinfo_stream(key))["last-generated-id"].decode()
        return found

    async def finished(self, group: str, marks: dict[str, str]) -> bool:
        """Whether the group holds and lacks nothing of what lay there at the marks."""
        async with self.valkey() as client:
            return all([await _finished(client, group, key, _place(mark)) for key, mark in marks.items()])

    def children(self, state: str = "") -> list[int]:
        """Processes of the supervisor, with a state of /proc when it is given (T: stopped)."""
        parent = self.house.process.pid
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in found if not state or _state(int(pid)) == state]


async def _finished(client: Any, group: str, key: str, mark: tuple[int, int]) -> bool:
    pending = await client.xpending(key, group)
    rows = {row["name"].decode(): row for row in await client.xinfo_groups(key)}
    open_before = pending["pending"] and _place(pending["min"].decode()) <= mark
    return not open_before and _place(rows[group]["last-delivered-id"].decode()) >= mark


def _place(entry: str) -> tuple[int, int]:
    head, _, tail = entry.partition("-")
    return int(head), int(tail or 0)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@dataclass(slots=True)
class Field:
    """What one case works with. long: full form instead of quick; wanted: runs it is to have at least; outage_s: of a
    frozen server, None = as the form has it; takeovers: seconds each recovery took, and what had been struck; notes:
    promises that the case itself saw broken."""

    ground: Ground
    load: Load
    long: bool
    wanted: int
    outage_s: float | None = None
    takeovers: list[tuple[float, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def outage(self, long: float, quick: float) -> float:
        """Seconds for which a server is frozen."""
        form = long if self.long else quick
        return form if self.outage_s is None else self.outage_s

    async def crash(self, group: str, point: str) -> asyncio.Task[None]:
        """Kill whoever next passes a crash point. The task ends when another process is in its place and its work was
        taken over."""
        room = room_of(group)
        async with self._one_at_a_time:  # there is one file of faults
            await until(lambda: self._pid(room), f"{room} to be ready")
            old = self._pid(room)
            marks = await self.strike(group, point)
        return self._replaced(room, old, group, marks, await self._beside(room, group))

    async def kill(self, room: str) -> asyncio.Task[None]:
        """The same by a signal, now."""
        old = self.ground.house.kill(room)
        return self._replaced(room, old, room, await self._mark(room), await self._beside(room, room))

    async def _beside(self, room: str, group: str) -> dict[str, dict[str, str]]:
        """The other groups that die with a room's process, and what lies in their streams now."""
        dying = self.ground.process_of(room)
        others = [one for one in self.ground.groups if one != group and room_of(one) in dying]
        return {one: await self.ground.mark(one) for one in others}

    def _replaced(
        self, room: str, old: int, group: str, marks: dict[str, str], beside: dict[str, dict[str, str]]
    ) -> asyncio.Task[None]:
        struck = monotonic()

        async def wait() -> None:
            if group in self.ground.groups:
                await self.taken_over(group, marks, struck)
            else:
                await self.serving(group, struck)
            for other, theirs in beside.items():
                await self._finished(other, theirs, struck)
            await until(lambda: self._pid(room) not in (0, old), f"another {room}")

        return asyncio.create_task(wait())

    def _pid(self, room: str) -> int:
        """Where it is ready, 0 while it is not."""
        try:
            found = self.ground.house.connection
        except (OSError, ValueError):
            return 0
        ready = room in found["health_ports"] or room in SERVERS
        return int(found["pids"].get(room, 0)) if ready else 0

    async def serving(self, name: str, struck: float) -> None:
        """What has no group is taken over when a new run is answered."""
        await self.load.goes_on()
        self.takeovers.append((monotonic() - struck, name))

    async def _mark(self, group: str) -> dict[str, str]:
        return await self.ground.mark(group) if group in self.ground.groups else {}

    async def strike(self, group: str, point: str, kind: str = "exit") -> dict[str, str]:
        """Arm a crash point and wait until it struck; what lay in the group's streams then."""
        fault = self.ground.fault
        fault.with_suffix(".new").write_text(f"{group}:{point}:1:{kind}")
        fault.with_suffix(".new").rename(fault)
        await until(lambda: not fault.exists(), f"nobody passed {group}:{point}")
        return await self._mark(group)

    async def taken_over(self, group: str, marks: dict[str, str], struck: float) -> None:
        """Wait until the group has finished what lay there, and note how long it took."""
        if await self._finished(group, marks, struck):
            self.takeovers.append((monotonic() - struck, group))

    async def _finished(self, group: str, marks: dict[str, str], struck: float) -> bool:
        """Wait until the group has finished what lay there; False, and a note, when it does not."""
        while not await self.ground.finished(group, marks):
            if monotonic() > struck + _RECOVERY_S:
                self.notes.append(f"{group}: not taken over within {_RECOVERY_S:.0f} s")
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def freeze(self, group: str, point: str) -> None:
        """Stop whoever next passes a crash point; it wakes up as a stale owner after twice the idle limit."""
        async with self._one_at_a_time:
            marks = await self.strike(group, point, "hang")
        struck = monotonic()
        frozen = self.ground.children("T")
        try:
            await self.taken_over(group, marks, struck)
            await asyncio.sleep(max(0.0, 2 * self.ground.idle_s(group) - (monotonic() - struck)))
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        await self.load.goes_on()

    @asynccontextmanager
    async def second(self, room: str) -> AsyncIterator[None]:
        """During the block two processes serve the room, and every other room of its process that holds runs."""
        holding = {room_of(group) for group in (*self.ground.topology.streams["requests"].groups, "router")}
        rooms = sorted(self.ground.process_of(room) & holding)
        try:
            for one in rooms:
                await self._scale(one, 2)
            yield
        finally:
            for one in rooms:
                await self._scale(one, 1)

    async def _scale(self, room: str, number: int) -> None:
        done = await asyncio.to_thread(command, self.ground.house, "scale", room, str(number))
        if done.returncode:
            raise RuntimeError(f"scale {room} {number}: {done.stdout}{done.stderr}")

    @asynccontextmanager
    async def stopped(self, server: str) -> AsyncIterator[None]:
        """A server frozen during the block; afterwards until a new run is answered counts as its take-over."""
        pid = self.ground.house.pid(server)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
        self.takeovers.append((await self.load.goes_on(), server))
