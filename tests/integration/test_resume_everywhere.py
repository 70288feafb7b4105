"""A run is read again from anywhere, at any door: the same events, byte for byte, as its client got them.

Runs of every kind are played through one door: single events and many in a frame, data of several lines, all of
Unicode, take-overs between and inside frames, an error as the end, an answer that is no stream. While each lives and
after it has ended it is read at random cut points at a second door.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest_asyncio

from schemas.errors import Failure
from schemas.events import RequestCompleted, RequestFailed, Usage
from schemas.frames import encode_failure
from state.memory import MemoryKeys
from tests.doorway_support import Doorway, claimed, doorway, say, seals
from tests.ingress_support import (
    RawAnswer,
    chat_body,
    chunk,
    connected,
    head,
    new_key,
    post,
    raw,
    read_chunk,
    read_head,
)
from tests.run_support import RING, Hands, RedisWorld, World, open_world, store_frame, until

CUTS = 1_000
SEED = 20
TEXTS = (
    "He",
    "llo ",
    "\u2028",
    "\x85",
    "日本",
    "👩‍👩‍👧",
    "e\u0301",
    '"quoted"\\',
    "\\n",
    "tab\t",
    "",
    "x" * 3_000,
    "[DONE]",
    "data: no",
)
#: Events that no engine should send and some do: several data lines, another field, CRLF.
ODD = (
    b"data: a\ndata: b\n\n",
    b"event: note\ndata: {}\n\n",
    b"data: one\r\n\r\n",
    b"data:\n\n",
    b"data:  two spaces\n\n",
)
_BLOCK = re.compile(rb"(?:: .*\n)*id: (\d+)\n((?:data: .*\n)+)\n")


@dataclass
class Play:
    """One run as it was played: its id, what its client got, and what was read of it while it lived."""

    run: str
    stream: bool
    client: RawAnswer | None = None
    live: list[tuple[int, asyncio.Task[RawAnswer]]] = field(default_factory=list)


@pytest_asyncio.fixture
async def world(valkey_cluster: str) -> AsyncIterator[World]:
    async with open_world("valkey", lambda: valkey_cluster) as opened:
        yield opened


@pytest_asyncio.fixture
async def doors(world: World) -> AsyncIterator[tuple[Doorway, Doorway]]:
    """Two ingresses over one store, and one key that both know."""
    minted, record = new_key(RING, tenant="org")
    keys = MemoryKeys([record])
    async with doorway(world, keys, minted.token, "one") as one, doorway(world, keys, minted.token, "two") as two:
        yield one, two


def frames_of(chance: random.Random) -> list[list[bytes]]:
    """The events of one answer, in frames."""
    events = [chance.choice(ODD) if chance.random() < 0.15 else chunk(chance.choice(TEXTS)) for _ in range(25)]
    frames: list[list[bytes]] = []
    while events:
        size = chance.choice((1, 1, 2, 3, 7))
        frames.append(events[:size])
        events = events[size:]
    return frames


class Player:
    """Plays runs as a router would, with take-overs, and reads them at the other door meanwhile."""

    def __init__(self, world: World, doors: tuple[Doorway, Doorway], chance: random.Random) -> None:
        self.world, (self.door, self.other), self.chance = world, doors, chance
        self._known: set[str] = set()

    async def streamed(self, *, fails: bool) -> Play:
        """A stream that ends well, or with an error in the middle."""
        asking = asyncio.create_task(raw(self.door.port, post(self.door.token, chat_body(stream=True))))
        hands = await self._claimed()
        play, last = Play(hands.run, True), 0
        for events in frames_of(self.chance):
            if last and self.chance.random() < 0.1:
                await self._take_over(hands)
            last += len(events)
            await self._flush(hands, last, events)
            if self.chance.random() < 0.3:
                after = self.chance.randint(0, last)
                play.live.append((after, asyncio.create_task(self.read(play.run, after))))
        await self._end(hands, last, b"data: [DONE]\n\n", fails)
        play.client = await asking
        return play

    async def unary(self) -> Play:
        """An answer that is no stream; its text has lines."""
        asking = asyncio.create_task(raw(self.door.port, post(self.door.token, chat_body())))
        hands = await self._claimed()
        play = Play(hands.run, False)
        play.live.append((0, asyncio.create_task(self.read(play.run, 0))))
        await self._end(hands, 0, '{"a": "日本\u2028",\n "b": 1}'.encode(), fails=False)
        play.client = await asking
        return play

    async def read(self, run: str, after: int, door: Doorway | None = None) -> RawAnswer:
        """What lies behind `after`, at the other door."""
        at = door or self.other
        return await raw(at.port, head("GET", f"/v1/streams/{run}?after={after}", at.token))

    async def _claimed(self) -> Hands:
        self.epoch, self.owner = 1, "r1:a"
        hands = await claimed(self.world, self._known)
        self._known.add(hands.run)
        return hands

    async def _take_over(self, hands: Hands) -> None:
        """The router died; another one goes on."""
        self.epoch += 1
        self.owner = f"r{self.epoch}:x"
        entry = await hands.field("entry")
        taken = await self.world.scripts.take(hands.lane, "router", f"r{self.epoch}", 0, entry)
        claim = await self.world.scripts.claim(hands.run, hands.lane, entry, f"r{self.epoch}", self.owner)
        assert (taken.state, claim.state, claim.epoch) == ("taken", "ok", self.epoch)

    async def _flush(self, hands: Hands, last: int, events: Sequence[bytes]) -> None:
        frame = seals("router").frame(hands.run, self.epoch, last, "data", len(events), b"".join(events), None)
        assert await store_frame(self.world.scripts, hands.run, self.owner, last, frame, epoch=self.epoch) == "ok"

    async def _end(self, hands: Hands, last: int, final: bytes, fails: bool) -> None:
        failure = Failure(code="upstream_interrupted", message="It broke: „jäh“.")
        kind, payload = ("error", encode_failure(failure)) if fails else ("end", final)
        fact = (
            RequestFailed(run=hands.run, failure=failure)
            if fails
            else RequestCompleted(run=hands.run, model="tiny", endpoint="e1", usage=Usage())
        )
        sealer = seals("router")
        frame = sealer.frame(hands.run, self.epoch, last + 1, kind, 1, payload, None)
        ending, place = sealer.ending(fact, self.epoch), f"{self.epoch}-{last}"
        assert await self.world.scripts.end(hands.run, "owner", self.owner, place, frame, ending) == "ok"


def events_of(body: bytes) -> list[tuple[int, bytes]]:
    """(number, its bytes) of a replayed body, which holds nothing else."""
    found = [(int(match[1]), match[0]) for match in _BLOCK.finditer(body)]
    assert b"".join(block for _, block in found) == body
    return found


def data_of(body: bytes) -> list[bytes]:
    """The data of every event as a reader of event streams takes it."""
    found, lines = [], []
    for line in re.split(rb"\r\n|\n|\r", body):
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif not line and lines:
            found.append(b"\n".join(lines))
            lines = []
    return found


async def test_runs_are_read_again_at_a_thousand_cut_points_at_another_door(
    world: World, doors: tuple[Doorway, Doorway]
) -> None:
    chance = random.Random(SEED)
    player = Player(world, doors, chance)
    plays = [await player.streamed(fails=number % 3 == 2) for number in range(12)]
    plays += [await player.unary() for _ in range(2)]
    wholes = [await player.read(play.run, 0) for play in plays]
    cuts = 0
    for play, whole in zip(plays, wholes, strict=True):
        assert play.client is not None and whole.clean
        events = events_of(whole.body)
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        told = data_of(play.client.body) if play.stream else [play.client.body]
        assert data_of(whole.body) == told
        for after, reading in play.live:
            assert (await reading).body == b"".join(block for _, block in events[after:])
            cuts += 1
    assert cuts > 20
    while cuts < CUTS:
        wave = [chance.randrange(len(plays)) for _ in range(min(40, CUTS - cuts))]
        places = [(number, chance.randint(0, len(events_of(wholes[number].body)) + 1)) for number in wave]
        readings = [player.read(plays[n].run, after, chance.choice(doors)) for n, after in places]
        for (number, after), got in zip(places, await asyncio.gather(*readings), strict=True):
            rest = events_of(wholes[number].body)[after:]
            assert (got.status, got.clean, got.body) == (200, True, b"".join(block for _, block in rest))
        cuts += len(places)


async def test_client_of_a_door_that_dies_reads_on_at_another(world: World, doors: tuple[Doorway, Doorway]) -> None:
    """The connection is cut, never ended cleanly; the client counts what it has and asks elsewhere."""
    minted, record = new_key(RING, tenant="org")
    player = Player(world, doors, random.Random(SEED))
    async with doorway(world, MemoryKeys([record]), minted.token, "dying") as dying, connected(dying.port) as line:
        reader, writer = line
        writer.write(post(minted.token, chat_body(stream=True)))
        hands = await claimed(world)
        player.epoch, player.owner = 1, "r1:a"
        await say(world, hands, 2, "He", "l")
        await read_head(reader)
        had = await read_chunk(reader)
        await dying.server.stop()
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
    await player._flush(hands, 3, [chunk("lo")])
    await player._end(hands, 3, b"data: [DONE]\n\n", fails=False)
    rest = await player.read(hands.run, len(data_of(had)))
    assert data_of(had) + data_of(rest.body) == data_of(chunk("He") + chunk("l") + chunk("lo") + b"data: [DONE]\n\n")


async def test_run_goes_on_for_a_reader_at_another_door_and_is_cancelled_when_all_have_left(
    world: World, doors: tuple[Doorway, Doorway]
) -> None:
    one, two = doors
    async with connected(two.port) as (second, later):
        async with connected(one.port) as (first, writer):
            writer.write(post(one.token, chat_body(stream=True)))
            hands = await claimed(world)
            await say(world, hands, 1, "a")
            await first.readuntil(chunk("a"))
            later.write(head("GET", f"/v1/streams/{hands.run}?after=0", two.token))
            await second.readuntil(b"id: 1\n")
        await until(lambda: _watchers(hands, 1))
        assert await hands.field("cancel") == ""
        await say(world, hands, 2, "b")
        await second.readuntil(b"id: 2\n")
    await until(lambda: _cancelled(hands))
    assert await _watchers(hands, 0)


async def test_reader_of_a_dead_door_counts_until_the_door_is_given_up(
    world: World, doors: tuple[Doorway, Doorway]
) -> None:
    one, _ = doors
    asking = asyncio.create_task(raw(one.port, post(one.token, chat_body(stream=True))))
    hands = await claimed(world)
    await say(world, hands, 1, "a")
    await world.scripts.watch(hands.run, "dead#1", add=True)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: _watchers(hands, 1))
    assert await hands.field("cancel") == ""
    assert (await world.scripts.watch(hands.run, "dead#", add=False)).watchers == 0
    assert isinstance(world, RedisWorld)
    assert await world.redis.execute("ZSCORE", f"{hands.p}:left", hands.run) is not None


async def _watchers(hands: Hands, count: int) -> bool:
    return len((await hands.field("watchers")).split()) == count


async def _cancelled(hands: Hands) -> bool:
    return bool(await hands.field("cancel"))
