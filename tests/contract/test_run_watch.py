"""Watching a run and leaving it: frames in order, none missing, none twice, whatever pushes are lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from base.ids import mint_run_id
from runtime.door import Bounds, StreamDoor
from runtime.names import prefix, push_channel
from runtime.runs import Runs
from runtime.watch import StreamWatch
from schemas.errors import Code, DecodeError, Refusal
from schemas.events import RequestCompleted, Usage
from schemas.frames import OWNER, Frame, StoredFrame
from schemas.ports import NewRun, Watch
from tests.engine_support import request, seals
from tests.run_support import (
    CHANCE,
    CLOCK,
    FAMILIES,
    PARTITIONS,
    Hands,
    MemoryWorld,
    RedisWorld,
    World,
    answer,
    open_gates,
    store_frame,
    until,
)

SEALS = seals("router")


class Owner:
    """A run that was accepted through a door and is owned by a router of ours. deaf: pushes don't arrive."""

    def __init__(self, world: World, door: StreamDoor, watch: Watch) -> None:
        self.world, self.door, self.watch = world, door, watch
        self.run, self.epoch, self.sequence, self.owner = watch.run, 0, 0, ""
        self.hands = Hands(world, self.run)
        self.entry = ""

    async def clear(self) -> None:
        for family in FAMILIES:
            await self.world.scripts.verdict(answer(self.run, family))
        (self.entry,) = await self.hands.read(self.hands.lane, "router", "r1")

    async def claim(self, owner: str = "r1:a") -> None:
        await self.world.scripts.claim(self.run, self.hands.lane, self.entry, owner.partition(":")[0], owner)
        self.owner, self.epoch = owner, self.epoch + 1

    async def flush(self, events: int = 1, size: int = 1) -> None:
        last = self.sequence + events
        payload = f"{last}|".encode() * size
        frame = SEALS.frame(self.run, self.epoch, last, "data", events, payload, {OWNER: self.owner.rpartition(":")[2]})
        assert await store_frame(self.world.scripts, self.run, self.owner, last, frame, epoch=self.epoch) in (
            "ok",
            "cancel",
        )
        self.sequence = last

    async def end(self) -> None:
        frame = SEALS.frame(self.run, self.epoch, self.sequence + 1, "end", 1, b"last", None)
        fact = RequestCompleted(run=self.run, model="m", endpoint="e", usage=Usage())
        place = f"{self.epoch}-{self.sequence}"
        ended = await self.world.scripts.end(
            self.run, "owner", self.owner, place, frame, SEALS.ending(fact, self.epoch)
        )
        assert ended == "ok"


@pytest_asyncio.fixture
async def door(world: World) -> AsyncIterator[StreamDoor]:
    """A door that hears pushes of every partition."""
    yield await _make_door(world, "door")


async def _make_door(world: World, name: str, *, deaf: bool = False) -> StreamDoor:
    made = StreamDoor(name, PARTITIONS, world.scripts, world.runs, seals("ingress"), CLOCK, CHANCE, Bounds())
    await open_gates(world.scripts)
    if not deaf:
        channels = [push_channel(prefix(n), name) for n in range(PARTITIONS)]
        await world.push.listen(channels, made.hub.hear, made.hub.missed)
    return made


async def _accepted(world: World, door: StreamDoor, **changes: Any) -> Owner:
    new = NewRun(accepted=request(door.mint(), **changes), body=b"{}", deadline_ms=60_000)
    return Owner(world, door, await door.accept(new))


async def _owned(world: World, door: StreamDoor, **changes: Any) -> Owner:
    owner = await _accepted(world, door, **changes)
    await owner.clear()
    await owner.claim()
    return owner


async def _sequences(watch: Watch, count: int) -> list[int]:
    """The sequences of the next frames; every wait is long enough for a read after silence."""
    return [(await _next(watch)).sequence for _ in range(count)]


async def _next(watch: Watch) -> Frame:
    frame = await watch.next(20.0)
    assert frame is not None, "silence"
    return frame


async def test_frames_arrive_in_order_and_end(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    for events in (1, 2, 3):
        await owner.flush(events)
    await owner.end()
    got = [await _next(owner.watch) for _ in range(4)]
    assert [(f.sequence, f.events, f.first) for f in got] == [(1, 1, 1), (3, 2, 2), (6, 3, 4), (7, 1, 7)]
    assert [f.terminal for f in got] == [False, False, False, True]
    assert await owner.watch.next(0.0) is None and door.hub.live == 0


class Client:
    """Implements schemas.ports.Direct."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.takes = True

    def ready(self) -> bool:
        return self.takes

    def put(self, frame: Frame) -> None:
        assert self.takes
        self.got.append(frame.sequence)


async def test_client_that_takes_frames_at_once_is_given_them_until_the_last(world: World, door: StreamDoor) -> None:
    owner, client = await _owned(world, door), Client()
    owner.watch.direct = client
    asking = asyncio.ensure_future(_next(owner.watch))
    for events in (1, 2, 3):
        await owner.flush(events)
    await until(lambda: client.got == [1, 3, 6])
    assert not asking.done()
    await owner.end()
    last = await asking
    assert (last.sequence, last.terminal, client.got) == (7, True, [1, 3, 6])


async def test_frames_that_a_client_cannot_take_now_are_its_reader_s_and_later_ones_follow(
    world: World, door: StreamDoor
) -> None:
    owner, client = await _owned(world, door), Client()
    owner.watch.direct, client.takes = client, False
    await owner.flush()
    await until(lambda: _queued(owner.watch) == 1)
    client.takes = True
    await owner.flush()  # not before the one that waits
    await until(lambda: _queued(owner.watch) == 2)
    assert await _sequences(owner.watch, 2) == [1, 2] and client.got == []
    await owner.flush()
    await until(lambda: client.got == [3])
    owner.watch.direct = None
    await owner.flush()
    assert await _sequences(owner.watch, 1) == [4]


async def test_gap_before_a_frame_for_a_client_is_read_from_the_stream(world: World) -> None:
    door = await _make_door(world, "deaf", deaf=True)
    owner, client = await _owned(world, door), Client()
    owner.watch.direct = client
    await owner.flush()
    await owner.flush()
    sealed = SEALS.frame(owner.run, 1, 2, "data", 1, b"2|", {OWNER: "a"})
    head = f"{owner.run} 1 2 1 data {len(sealed.headers)}\n"
    door.hub.hear(head.encode() + sealed.headers + sealed.payload)
    assert await _sequences(owner.watch, 2) == [1, 2] and client.got == []


async def test_frame_that_does_not_open_is_told_to_the_reader_and_given_to_nobody(world: World) -> None:
    door = await _make_door(world, "deaf", deaf=True)
    owner, client = await _owned(world, door), Client()
    owner.watch.direct = client
    door.hub.hear(f"{owner.run} 1 1 1 data 0\n".encode() + b"forged")
    with pytest.raises(DecodeError):
        await owner.watch.next(20.0)
    assert client.got == []


def _queued(watch: Watch) -> int:
    assert isinstance(watch, StreamWatch)
    return len(watch._queue)


async def test_silence_is_told_as_none(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    assert await owner.watch.next(0.01) is None


async def test_lost_push_is_read_from_the_stream(world: World, door: StreamDoor) -> None:
    """The second frame's push is swallowed: the third shows the gap."""
    owner = await _owned(world, door)
    await owner.flush()
    assert await _sequences(owner.watch, 1) == [1]
    await world.scripts.watch(owner.run, "door#", add=False)
    await owner.flush()
    await world.scripts.watch(owner.run, "door#1", add=True)
    await owner.flush()
    assert await _sequences(owner.watch, 2) == [2, 3]
    await owner.end()
    assert await _sequences(owner.watch, 1) == [4]


async def test_reader_without_any_push_lives_by_the_stream(world: World) -> None:
    door = await _make_door(world, "deaf", deaf=True)
    owner = await _owned(world, door)
    for _ in range(5):
        await owner.flush()
    await owner.end()
    for _ in range(2):  # a run that was quiet between two looks is read
        await door.hub.look()
    assert await _sequences(owner.watch, 6) == [1, 2, 3, 4, 5, 6]


async def test_reconnection_sends_every_reader_to_the_stream(world: World) -> None:
    door = await _make_door(world, "deaf", deaf=True)
    owner = await _owned(world, door)
    await owner.flush()
    door.hub.missed()
    assert await _sequences(owner.watch, 1) == [1]


async def test_slow_reader_costs_bounded_memory_and_loses_nothing(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    watch = owner.watch
    assert isinstance(watch, StreamWatch)
    for _ in range(80):
        await owner.flush(size=4_000)
    await owner.end()
    await until(lambda: watch._behind)
    assert watch._queued <= 64 * 1024
    assert await _sequences(watch, 81) == list(range(1, 82))


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize("ended", [False, True])
async def test_attach_goes_on_behind_what_was_seen(world: World, door: StreamDoor, after: int, ended: bool) -> None:
    """Frames of 1, 2 and 3 events and an end. `after` inside a frame brings the whole frame; the reader cuts."""
    owner = await _owned(world, door)
    for events in (1, 2, 3):
        await owner.flush(events)
    if ended:
        await owner.end()
    watch = await door.attach(owner.run, after)
    if not ended:
        await owner.end()
    expected = [last for last in (1, 3, 6, 7) if last > after]
    assert await _sequences(watch, len(expected)) == expected
    assert await watch.next(0.0) is None


async def test_attach_while_frames_flow_misses_none(world: World, door: StreamDoor) -> None:
    """Readers come at every moment of the stream; what is pushed while they read the stream is not forgotten."""
    owner = await _owned(world, door)
    readers: list[asyncio.Task[list[int]]] = []
    for number in range(30):
        await owner.flush()
        if number % 3 == 0:
            watch = await door.attach(owner.run, 0)
            readers.append(asyncio.create_task(_sequences(watch, 31)))
    await owner.end()
    for got in await asyncio.gather(*readers):
        assert got == list(range(1, 32))


async def test_attach_to_an_unknown_run_is_not_found(world: World, door: StreamDoor) -> None:
    with pytest.raises(Refusal) as caught:
        await door.attach(mint_run_id(CLOCK, CHANCE, 1), 0)
    assert caught.value.failure.code == "not_found" and door.hub.live == 0


async def test_expired_stream_is_not_found_under_its_reader(world: World) -> None:
    door = await _make_door(world, "deaf", deaf=True)
    owner = await _owned(world, door)
    watch = await door.attach(owner.run, 0)
    await world.forget(owner.hands.hash)
    with pytest.raises(Refusal) as caught:
        await watch.next(20.0)
    assert caught.value.failure.code == "not_found"


async def test_new_epoch_that_goes_on_is_seamless(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    await owner.flush(2)
    assert (await world.scripts.take(owner.hands.lane, "router", "r2", 0, owner.entry)).state == "taken"
    await owner.claim("r2:b")
    await owner.flush()
    await owner.end()
    got = [await _next(owner.watch) for _ in range(3)]
    assert [(f.epoch, f.sequence) for f in got] == [(1, 2), (2, 3), (2, 4)]


async def test_new_epoch_that_starts_below_what_was_seen_ends_the_reader(world: World) -> None:
    """No owner of ours does that; a failover that lost the hash's last write can."""
    door = await _make_door(world, "deaf", deaf=True)
    owner = await _owned(world, door)
    watch = owner.watch
    assert isinstance(watch, StreamWatch)
    for epoch, sequence in ((1, 1), (1, 2), (2, 2)):
        sealed = SEALS.frame(owner.run, epoch, sequence, "data", 1, b"x", None).payload
        door.hub.hear(f"{owner.run} {epoch} {sequence} 1 data 0\n".encode() + sealed)
        if epoch == 1:
            assert (await _next(watch)).sequence == sequence
    await _store(world, owner.run, (2, 2))
    with pytest.raises(Refusal) as caught:
        await watch.next(20.0)
    assert caught.value.failure.code == "upstream_interrupted"


async def _store(world: World, run: str, place: tuple[int, int]) -> None:
    """A frame straight into the reply stream, by another owner."""
    key = Hands(world, run).reply
    sealed = SEALS.frame(run, *place, "data", 1, b"x", {OWNER: "another"})
    fields: dict[str, str | bytes | int] = {"k": "data", "n": 1, "d": sealed.payload, "h": sealed.headers}
    if isinstance(world, MemoryWorld):
        world.server.add(key, fields, place)
    elif isinstance(world, RedisWorld):
        await world.redis.execute("XADD", key, f"{place[0]}-{place[1]}", *itertools.chain(*fields.items()))


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_last_watcher_that_leaves_cancels_a_running_run(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    second = await door.attach(owner.run, 0)
    await owner.watch.leave()
    assert await owner.hands.field("cancel") == ""
    await second.leave()
    await second.leave()
    assert await owner.hands.field("cancel") == "client" and door.hub.live == 0


async def test_reader_of_a_frame_that_a_failover_lost_is_shown_no_other_answer(world: World, door: StreamDoor) -> None:
    """The new server gives the same epoch and place to the frame of another owner."""
    owner = await _owned(world, door)
    await owner.flush()
    assert (await _next(owner.watch)).sequence == 1
    await world.forget(owner.hands.reply)
    for sequence in (1, 2):
        await _store(world, owner.run, (1, sequence))
    door.hub.missed()
    with pytest.raises(Refusal) as caught:
        await owner.watch.next(20.0)
    assert caught.value.failure.code == "upstream_interrupted"


async def test_reader_that_has_left_is_told_so_at_once_and_not_with_silence(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    asking = asyncio.ensure_future(owner.watch.next(60))
    await asyncio.sleep(0.02)
    await owner.watch.leave()
    for ask in (asking, owner.watch.next(60)):
        with pytest.raises(Refusal) as told:
            await asyncio.wait_for(ask, 2)
        assert told.value.failure.code == Code.cancelled


@pytest.mark.parametrize("cleared", [False, True])
async def test_last_watcher_that_leaves_ends_a_waiting_run(world: World, door: StreamDoor, cleared: bool) -> None:
    owner = await _accepted(world, door)
    if cleared:
        await owner.clear()
    else:
        await world.scripts.verdict(answer(owner.run, "authorization"))
    await owner.watch.leave()
    assert (await owner.hands.state(), await owner.hands.field("outcome")) == ("ended", "cancelled")
    assert await owner.hands.kinds() == ["RequestCancelled"]


async def test_policy_finish_lets_the_run_go_on(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door, on_disconnect="finish")
    await owner.watch.leave()
    assert await owner.hands.field("cancel") == ""
    await owner.end()


async def test_policy_grace_says_until_when_and_whoever_comes_back_stops_it(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door, on_disconnect="grace:30.5")
    before = CLOCK.now_ms()
    await owner.watch.leave()
    ends = await _ends_at(world, owner)
    assert before + 30_000 <= ends <= CLOCK.now_ms() + 31_000
    back = await door.attach(owner.run, 0)
    assert await _ends_at(world, owner) == 0
    await back.leave()
    assert await _ends_at(world, owner) >= ends
    await owner.end()
    assert await _ends_at(world, owner) == 0 and await owner.hands.field("cancel") == ""


@pytest.mark.parametrize(("policy", "goes"), [("cancel", False), ("grace:60", True), ("finish", True)])
async def test_run_left_before_authorization_answered_follows_the_policy_that_it_says(
    world: World, door: StreamDoor, policy: str, goes: bool
) -> None:
    """The acceptance said otherwise: it knows neither the key's policy nor the model's."""
    owner = await _accepted(world, door, on_disconnect="finish" if policy == "cancel" else "cancel")
    await owner.watch.leave()
    assert await owner.hands.state() == "checking" and await _ends_at(world, owner) == 0
    await world.scripts.verdict(msgspec.structs.replace(answer(owner.run, "authorization"), policy=policy))
    assert bool(await _ends_at(world, owner)) == (policy != "finish")
    assert await owner.hands.field("cancel") == ("" if goes else "client")


async def test_run_left_unchecked_keeps_whoever_came_back_before_the_verdict(world: World, door: StreamDoor) -> None:
    owner = await _accepted(world, door)
    await owner.watch.leave()
    await door.attach(owner.run, 0)
    await world.scripts.verdict(msgspec.structs.replace(answer(owner.run, "authorization"), policy="cancel"))
    assert await _ends_at(world, owner) == 0 and await owner.hands.field("cancel") == ""


async def _ends_at(world: World, owner: Owner) -> int:
    """When the run's policy ends it, in ms of the server's clock; 0 = never."""
    if isinstance(world, MemoryWorld):
        return world.server.left.get(owner.hands.p, {}).get(owner.run, 0)
    assert isinstance(world, RedisWorld)
    return int(await world.redis.execute("ZSCORE", f"{owner.hands.p}:left", owner.run) or 0)


async def test_door_cancels_wherever_the_run_stands(world: World, door: StreamDoor) -> None:
    waiting, running = await _accepted(world, door), await _owned(world, door)
    assert await door.cancel(waiting.run, "operator") and await waiting.hands.state() == "ended"
    assert await door.cancel(running.run, "operator") and await running.hands.field("cancel") == "operator"
    assert not await door.cancel(waiting.run, "operator")
    assert not await door.cancel(mint_run_id(CLOCK, CHANCE, 1), "operator")
    frame = await _next(waiting.watch)
    assert frame.kind == "error" and b"cancelled" in frame.payload


async def test_status_shows_the_run_and_nothing_sealed(world: World, door: StreamDoor) -> None:
    owner = await _owned(world, door)
    status = await door.status(owner.run)
    assert status is not None
    assert (status.state, status.key_id, status.tenant, status.stream, status.epoch) == (
        "running",
        "k1",
        "org",
        True,
        1,
    )
    assert set(status.times) == {"accepted", "cleared", "claimed"}
    assert not {name for name in status.detail if name in ("a", "as") or name.startswith(("v:", "rd:", "re:", "rs:"))}
    assert await door.status(mint_run_id(CLOCK, CHANCE, 1)) is None
    assert await door.status("not a run") is None


# --- silence ----------------------------------------------------------------------------------------------------------


class Counted:
    """The runs of a world, counting what is read of them."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.reads = self.looks = 0

    async def fields(self, run: str) -> Mapping[str, bytes]:
        self.reads += 1
        return await self._runs.fields(run)

    async def checking_body(self, run: str) -> bytes | None:
        return await self._runs.checking_body(run)

    async def kept_body(self, run: str) -> bytes | None:
        return await self._runs.kept_body(run)

    async def frames(self, run: str, epoch: int, after: int, count: int) -> Sequence[StoredFrame]:
        self.reads += 1
        return await self._runs.frames(run, epoch, after, count)

    async def places(self, runs: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        self.looks += 1
        return await self._runs.places(runs)

    async def of_once(self, p: str, names: Sequence[str]) -> Sequence[str]:
        return await self._runs.of_once(p, names)


async def test_idle_readers_read_nothing_and_are_asked_about_together(world: World) -> None:
    """Claimed, and no token yet: what hundreds of clients of a slow engine look like."""
    counted = Counted(world.runs)
    door = StreamDoor("idle", PARTITIONS, world.scripts, counted, seals("ingress"), CLOCK, CHANCE, Bounds())
    await open_gates(world.scripts)
    owner = await _owned(world, door)
    watches = [owner.watch, *[await door.attach(owner.run, 0) for _ in range(500)]]
    readers = [asyncio.create_task(watch.next(60.0)) for watch in watches]
    await until(lambda: not any(watch._behind for watch in watches if isinstance(watch, StreamWatch)))
    before = counted.reads
    for _ in range(5):
        await door.hub.look()
    assert (counted.reads - before, counted.looks) == (0, 5)
    assert sum(watch._queued + len(watch._queue) for watch in watches if isinstance(watch, StreamWatch)) == 0
    await owner.flush()
    await door.hub.look()
    assert [frame.sequence for frame in await asyncio.gather(*readers) if frame] == [1] * len(watches)


async def test_where_runs_stand_is_told_for_many_at_once(world: World, door: StreamDoor) -> None:
    owners = [await _owned(world, door) for _ in range(5)]
    await owners[0].flush(3)
    unknown = mint_run_id(CLOCK, CHANCE, 1)
    found = await world.runs.places([*(owner.run for owner in owners), unknown])
    assert found == {owners[0].run: (1, 3), **{owner.run: (1, 0) for owner in owners[1:]}, unknown: None}
    assert await world.runs.places([]) == {}


class Late(Counted):
    """A frame is stored while an empty page is on its way to its reader."""

    owner: Owner | None = None

    async def frames(self, run: str, epoch: int, after: int, count: int) -> Sequence[StoredFrame]:
        page = await super().frames(run, epoch, after, count)
        if self.owner is not None and not page:
            owner, self.owner = self.owner, None
            await owner.flush()
            await self._heard.wait()
        return page

    def __init__(self, runs: Runs) -> None:
        super().__init__(runs)
        self._heard = asyncio.Event()

    def hear(self, door: StreamDoor, message: bytes) -> None:
        door.hub.hear(message)
        self._heard.set()


async def test_frame_that_comes_while_an_empty_page_is_read_is_read_at_once(world: World) -> None:
    late = Late(world.runs)
    door = StreamDoor("late", PARTITIONS, world.scripts, late, seals("ingress"), CLOCK, CHANCE, Bounds())
    await open_gates(world.scripts)
    channels = [push_channel(prefix(n), "late") for n in range(PARTITIONS)]
    await world.push.listen(channels, lambda message: late.hear(door, message), door.hub.missed)
    owner = late.owner = await _owned(world, door)
    watch = await door.attach(owner.run, 0)
    frame = await watch.next(2.0)
    assert frame is not None and frame.sequence == 1
