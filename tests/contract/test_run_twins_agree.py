"""The twin and the server are given the same long random plays; every reply and everything left must be equal."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from base.ids import mint_run_id
from runtime.acceptance import Repeat
from runtime.client import ServerError
from runtime.groups import Groups
from runtime.scripts import DeadLetter, Held
from schemas.ports import Mark
from tests.run_support import CHANCE, CLOCK, FAMILIES, POOL, Hands, World, acceptance, answer, ending, open_world

_STEPS = 120
Move = tuple[str, tuple[Any, ...]]


@dataclass
class Player:
    """Plays moves on one world; entries are known by their number, so that ids may differ."""

    world: World
    runs: tuple[Hands, ...]
    groups: Groups
    seen: dict[str, list[str]] = field(default_factory=dict)

    async def note(self) -> None:
        """Give every new entry its number."""
        for stream in (self.runs[0].requests, self.runs[0].lane):
            known = self.seen.setdefault(stream, [])
            known += [id for id, _ in await self.world.entries(stream) if id not in known]

    def entry(self, stream: str, number: int) -> str:
        known = self.seen.get(stream, [])
        return known[number % len(known)] if known else "1-1"

    async def play(self, move: Move) -> object:
        name, args = move
        act: Callable[..., Awaitable[object]] = getattr(self, f"_{name}")
        try:
            reply = await act(*args)
        except ServerError as error:
            reply = str(error).partition(" ")[0]
        await self.note()
        return reply

    async def left(self) -> dict[str, object]:
        """Everything that is left, with numbers for ids."""
        first = self.runs[0]
        found: dict[str, object] = {str(n): await hands.snapshot() for n, hands in enumerate(self.runs)}
        for stream, groups in ((first.requests, FAMILIES), (first.lane, ("router",))):
            known = self.seen.get(stream, [])
            found[stream] = [known.index(id) for id, _ in await self.world.entries(stream)]
            for group in groups:
                pending = await self.world.pending(stream, group)
                found[f"{stream} {group}"] = {known.index(id): who for id, who in pending.items()}
                starts = await self.world.starts(stream, group)
                found[f"{stream} {group} starts"] = {known.index(id): count for id, count in starts.items()}
        found["dlq"] = [{**f, b"entry": b""} for _, f in await self.world.entries(f"{first.p}:dlq")]
        return found

    def _place(self, stream: str) -> tuple[str, str]:
        """(stream key, one of its groups' names as the moves call them)."""
        first = self.runs[0]
        return (first.lane, "router") if stream == "router" else (first.requests, stream)

    async def _announce(self, router: str, slots: int, holds_ms: int) -> object:
        return await self.world.scripts.announce(self.runs[0].p, router, holds_ms, {POOL: slots}, 100)

    async def _regate(self, run: int) -> object:
        return await self.world.scripts.regate(self.runs[run].run)

    async def _accept(self, run: int, most: int) -> object:
        return await self.world.scripts.accept(acceptance(self.runs[run].run, most_runs=most))

    async def _accept_once(self, run: int, asked: str, life: int) -> object:
        new = acceptance(self.runs[run].run, most_runs=5, keep_ms=600_000, watcher=f"door#{run}{asked}")
        new = replace(new, keep_body=asked == "a", background=run == 1)
        seen = await self.world.scripts.accept_once(new, Repeat(marks=(Mark("key", asked),), life=life, asked=True))
        return seen.state, seen.life, [number for number, hands in enumerate(self.runs) if hands.run == seen.run]

    async def _archived(self, run: int) -> object:
        return await self.world.scripts.archived(self.runs[run].run)

    async def _forget(self, run: int) -> object:
        return await self.world.scripts.forget(self.runs[run].run)

    async def _verdict(self, run: int, family: str, outcome: str, number: int) -> object:
        entry = self.entry(self.runs[0].requests, number) if number else ""
        return await self.world.scripts.verdict(answer(self.runs[run].run, family, outcome, entry))

    async def _read(self, group: str, consumer: str) -> object:
        stream, name = self._place(group)
        await self.groups.ensure(stream, name)
        return len(await self.groups.read([stream], name, consumer, 1, 1))

    async def _claim(self, run: int, number: int, consumer: str, nonce: str) -> object:
        hands = self.runs[run]
        entry = self.entry(hands.lane, number)
        claim = await self.world.scripts.claim(hands.run, hands.lane, entry, consumer, f"{consumer}:{nonce}")
        told = {name: value for name, value in claim.fields.items() if not name.startswith("t:")}
        return claim.state, claim.epoch, claim.sequence, claim.body, set(told), told.get("epoch"), told.get("state")

    async def _flush(self, run: int, owner: str, last: int, events: int) -> object:
        return await self.runs[run].flush(last, owner, events)

    async def _flush_next(self, run: int, owner: str, events: int) -> object:
        hands = self.runs[run]
        return await hands.flush(int(await hands.field("seq") or 0) + events, owner, events)

    async def _end(self, run: int, guard: str, value: str, epoch: int, sequence: int) -> object:
        return await self.runs[run].end(f"{epoch}-{sequence}", value, guard)

    async def _end_where_it_stands(self, run: int, guard: str, value: str) -> object:
        hands = self.runs[run]
        place = f"{await hands.field('epoch')}-{await hands.field('seq')}"
        return await hands.end(place, value, guard)

    async def _cancel(self, run: int, unwatched: bool) -> object:
        return await self.world.scripts.cancel(self.runs[run].run, "client", unwatched=unwatched)

    async def _watch(self, run: int, watcher: str, add: bool) -> object:
        return await self.world.scripts.watch(self.runs[run].run, watcher, add=add)

    async def _beat(self, group: str, consumer: str, number: int, run: int, owner: str) -> object:
        stream, name = self._place(group)
        held = Held(entry=self.entry(stream, number), run=self.runs[run].run if owner else "", owner=owner)
        return await self.world.scripts.beat(stream, name, consumer, [held])

    async def _take(self, group: str, consumer: str, number: int, idle: int) -> object:
        stream, name = self._place(group)
        taken = await self.world.scripts.take(stream, name, consumer, idle, self.entry(stream, number))
        return taken.state, taken.starts, set(taken.fields)

    async def _release(self, group: str, consumer: str, number: int, starts: int) -> object:
        stream, name = self._place(group)
        entries = [(self.entry(stream, number), starts)]
        return await self.world.scripts.release(stream, name, consumer, 0, entries)

    async def _dead(self, group: str, consumer: str, number: int, run: int, place: str) -> object:
        stream, name = self._place(group)
        ends: dict[str, Any] = {}
        if place:
            hands = self.runs[run]
            ends = {"run": hands.run, "frame": b"error", "ending": ending("RequestFailed", hands.run, "failed")}
            ends["place"] = f"{await hands.field('epoch')}-{await hands.field('seq')}" if place == "here" else place
        letter = DeadLetter(
            stream=stream,
            group=name,
            consumer=consumer,
            entry=self.entry(stream, number),
            starts=3,
            sealed=b"x",
            reason="why",
            **ends,
        )
        return await self.world.scripts.dead(letter)

    async def _trim(self) -> object:
        return await self.world.scripts.trim(self.runs[0].requests, FAMILIES)

    async def _retire(self, group: str, consumer: str) -> object:
        stream, name = self._place(group)
        return await self.world.scripts.retire(stream, name, consumer)

    async def _disown(self, group: str, consumer: str) -> object:
        stream, name = self._place(group)
        return await self.world.scripts.disown(stream, name, consumer, 600_000)

    async def _delete(self, group: str, number: int) -> object:
        stream, _ = self._place(group)
        await self.world.delete(stream, self.entry(stream, number))
        return None


#: How a run comes to be owned; a play begins with all of it or with a part.
_PROLOGUE: list[Move] = [
    ("announce", ("r1", 2, 600_000)),
    ("accept", (0, 5)),
    *(("read", (family, "r1")) for family in FAMILIES),
    *(("verdict", (0, family, "pass", 0)) for family in FAMILIES),
    ("read", ("router", "r1")),
    ("claim", (0, 0, "r1", "a")),
    ("flush_next", (0, "r1:a", 2)),
    ("cancel", (0, False)),
]


class Dice:
    """Moves that often make sense and sometimes don't."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _of(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def move(self) -> Move:
        run, group, consumer = (
            self._of(0, 0, 1),
            self._of("router", "router", *FAMILIES),
            self._of("r1", "r1", "r1", "r2"),
        )
        nonce, number = self._of("a", "a", "a", "b"), self._of(0, 0, 0, 1, 2, 3)
        owner = f"{consumer}:{nonce}"
        outcomes = ("pass", "pass", "pass", "edits", "skip", "refuse", "missing")
        moves: list[Move] = [
            ("accept", (run, self._of(1, 5, 5))),
            ("accept_once", (run, self._of("a", "a", "b"), self._of(0, 0, 1, 2))),
            ("archived", (run,)),
            ("forget", (run,)),
            ("verdict", (run, "authorization", self._of("pass", "pass", "pass", "refuse"), number)),
            ("verdict", (run, self._of(*FAMILIES[1:], "stranger"), self._of(*outcomes), number)),
            ("verdict", (run, self._of(*FAMILIES[1:]), self._of("pass", "edits"), number)),
            ("read", (group, consumer)),
            ("claim", (run, number, consumer, nonce)),
            ("claim", (run, number, consumer, nonce)),
            ("flush", (run, owner, self._of(1, 1, 2, 2, 3, 4, 5), self._of(1, 1, 2))),
            ("flush_next", (run, owner, self._of(1, 1, 3))),
            ("flush_next", (run, owner, 1)),
            ("end", (run, self._of("owner", "state", "unwatched"), owner, self._of(0, 1, 2), self._of(0, 1, 2))),
            ("cancel", (run, self._of(True, False))),
            ("watch", (run, self._of("door#1", "door#2", "other#1", "door#"), self._of(True, False))),
            ("beat", (group, consumer, number, run, self._of("", owner))),
            ("take", (group, consumer, number, self._of(0, 0, 600_000))),
            ("release", (group, consumer, number, self._of(0, 1, 2))),
            ("announce", (self._of("r1", "r2"), self._of(0, 1, 2), self._of(600_000, 600_000, 0))),
            ("regate", (run,)),
            ("trim", ()),
            ("retire", (group, consumer)),
            ("disown", (group, consumer)),
        ]
        rare: list[Move] = [
            ("end_where_it_stands", (run, "owner", owner)),
            ("end_where_it_stands", (run, "state", self._of("checking", "queued", "running"))),
            ("end_where_it_stands", (run, "unwatched", "")),
            ("dead", (group, consumer, number, run, self._of("", "here", "7-7"))),
            ("delete", (group, number)),
        ]
        return self._random.choice(rare if self._random.random() < 0.04 else moves)


@pytest.mark.parametrize("seed", range(12))
async def test_twin_and_server_give_the_same_replies_and_leave_the_same(seed: int, valkey_cluster: str) -> None:
    names = [mint_run_id(CLOCK, CHANCE, 2) for _ in range(2)]
    async with open_world("memory", str) as twin, open_world("valkey", lambda: valkey_cluster) as server:
        players = []
        for world in (twin, server):
            player = Player(world, tuple(Hands(world, name) for name in names), await world.groups())
            for group in (*FAMILIES, "router"):
                await player.groups.ensure(*player._place(group))
            players.append(player)
        dice, played = Dice(seed), []
        for _ in range(_STEPS):
            move = dice.move()
            played.append(move)
            replies = [await player.play(move) for player in players]
            assert replies[0] == replies[1], played
            if move[0] not in ("retire", "cancel"):
                assert await players[0].left() == await players[1].left(), played
