"""A server that comes back without its last writes: after a power cut, or as a replica that lagged and was promoted.

What it holds is a state of the past, whole in itself. Ahead of it are only those outside: clients that have seen
frames, routers that own runs, consumers with entries in hand. None of them may go on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from runtime.calm import Calm
from runtime.door import Bounds, StreamDoor
from runtime.memory import MemoryScripts, MemoryServer
from runtime.names import prefix, push_channel
from runtime.places import Places
from schemas.errors import OwnerLost, Refusal
from schemas.events import RequestCompleted, Usage
from schemas.frames import DATA, END, OWNER, Frame
from schemas.outcomes import Delivery, Done, Outcome
from schemas.ports import NewRun, RunLease, Watch
from tests.engine_support import LANE_KEY, PARTITION, REQUESTS, House, P, request, seals
from tests.run_support import (
    CHANCE,
    CLOCK,
    FAMILIES,
    PARTITIONS,
    POOL,
    Hands,
    World,
    answer,
    open_gates,
    store_frame,
    until,
)
from tests.state_support import FakeClock

SEALS = seals("router")
WORDS = 4  # frames of an answer before its last


@pytest_asyncio.fixture
async def door(world: World) -> StreamDoor:
    """A door that hears pushes of every partition, before which a router has room."""
    made = StreamDoor("door", PARTITIONS, world.scripts, world.runs, seals("ingress"), CLOCK, CHANCE, Bounds())
    await world.push.listen(
        [push_channel(prefix(n), "door") for n in range(PARTITIONS)], made.hub.hear, made.hub.missed
    )
    await open_gates(world.scripts)
    return made


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


@dataclass
class Life:
    """One execution of a run by one router. Every step can be done again and is then nothing."""

    world: World
    run: str
    router: str
    words: int = WORDS
    entry: str = ""
    epoch: int = 0
    first: int = 0  # the sequence it began at

    @property
    def owner(self) -> str:
        return f"{self.router}:{self.router}-nonce"

    @property
    def hands(self) -> Hands:
        return Hands(self.world, self.run)

    def steps(self) -> list[Callable[[], Awaitable[None]]]:
        """From the verdicts to the end."""
        return [
            *(lambda family=family: self._judge(family) for family in FAMILIES),
            self._read,
            self._claim,
            *(lambda last=last: self._flush(last) for last in range(1, self.words + 1)),
            self._end,
        ]

    async def _judge(self, family: str) -> None:
        await self.world.scripts.verdict(answer(self.run, family))

    async def _read(self) -> None:
        hands = self.hands
        read = await hands.read(hands.lane, "router", self.router)
        taken = await self.world.pending(hands.lane, "router")
        for entry in taken if not read else ():
            await self.world.scripts.take(hands.lane, "router", self.router, 0, entry)
        self.entry = (read or [*taken, ""])[0]

    async def _claim(self) -> None:
        hands = self.hands
        claim = await self.world.scripts.claim(self.run, hands.lane, self.entry, self.router, self.owner)
        self.epoch, self.first = claim.epoch, claim.sequence

    async def _flush(self, last: int) -> None:
        if self.first:
            return  # as the router does: the half of another's answer is not continued
        frame = SEALS.frame(self.run, self.epoch, last, DATA, 1, self._said(last), {OWNER: f"{self.router}-nonce"})
        await store_frame(self.world.scripts, self.run, self.owner, last, frame, epoch=self.epoch)

    async def _end(self) -> None:
        at = self.first or self.words
        fact = RequestCompleted(run=self.run, model="m", endpoint="e", usage=Usage())
        kind = "error" if self.first else END
        frame = SEALS.frame(self.run, self.epoch, at + 1, kind, 1, self._said(at + 1), {OWNER: f"{self.router}-nonce"})
        place, ending = f"{self.epoch}-{at}", SEALS.ending(fact, self.epoch)
        await self.world.scripts.end(self.run, "owner", self.owner, place, frame, ending)

    def _said(self, last: int) -> bytes:
        return f"{self.router}.{last}".encode()


@dataclass
class Client:
    """What a client was given: frames, or the code of an error."""

    watch: Watch
    frames: list[Frame] = field(default_factory=list)
    code: str = ""

    async def take(self, count: int) -> None:
        """Frames that are there already."""
        while len(self.frames) < count and (frame := await self.watch.next(20.0)) is not None:
            self.frames.append(frame)

    async def to_the_end(self) -> None:
        """Until the last frame or an error; silence is a failure."""
        try:
            while not (self.frames and self.frames[-1].terminal):
                frame = await self.watch.next(20.0)
                assert frame is not None, "silence"
                self.frames.append(frame)
        except Refusal as refusal:
            self.code = refusal.failure.code

    @property
    def authors(self) -> set[str]:
        """Whose words they are; an error frame's are nobody's."""
        return {frame.payload.decode().partition(".")[0] for frame in self.frames if frame.kind != "error"}


async def _accepted(door: StreamDoor) -> Client:
    new = NewRun(accepted=request(door.mint()), body=b"{}", deadline_ms=60_000)
    return Client(await door.accept(new))


@pytest.mark.parametrize("words", [2, WORDS, 7], ids=["shorter", "same", "longer"])
async def test_no_cut_makes_a_client_see_two_answers_or_silence(world: World, door: StreamDoor, words: int) -> None:
    """Cut at every step of a run's life, with a client that has seen all of it but the end; then another router does
    whatever is left to do, with an answer of its own that is shorter, as long or longer."""
    count = len(Life(world, "", "a").steps())
    for cut in range(count):
        client = await _accepted(door)
        first, second = Life(world, client.watch.run, "a"), Life(world, client.watch.run, "b", words)
        steps = first.steps()
        for number, step in enumerate(steps[:-1]):
            if number == cut:
                replica = await world.replica()
            await step()
        if cut == count - 1:
            replica = await world.replica()
        await client.take(WORDS)
        await world.promote(replica)
        await open_gates(world.scripts)
        if cut < count - 1:
            await steps[-1]()  # the first owner has not noticed
        for step in second.steps():
            await step()
        door.hub.missed()
        await client.to_the_end()
        assert client.authors <= {"a"} and (client.code or client.frames[-1].terminal), cut
        assert [frame.sequence for frame in client.frames] == list(range(1, len(client.frames) + 1)), cut
        assert client.code in ("", "upstream_interrupted"), (cut, client.code)
        assert await second.hands.state() == "ended", cut
        facts = [fields for _, fields in await world.entries(second.hands.facts)]
        assert [fields[b"run"].decode() for fields in facts].count(client.watch.run) == 1, cut


async def test_client_that_has_seen_nothing_gets_the_second_answer_whole(world: World, door: StreamDoor) -> None:
    client = await _accepted(door)
    replica = await world.replica()
    for step in Life(world, client.watch.run, "a").steps()[:5]:
        await step()
    await world.promote(replica)
    await open_gates(world.scripts)
    for step in Life(world, client.watch.run, "b").steps():
        await step()
    door.hub.missed()
    await client.to_the_end()
    assert (client.authors, client.code, len(client.frames)) == ({"b"}, "", WORDS + 1)


@pytest.mark.parametrize(("seen", "code"), [(0, "store_unavailable"), (WORDS, "upstream_interrupted")])
async def test_client_of_a_run_that_was_lost_whole_is_told(
    world: World, door: StreamDoor, seen: int, code: str
) -> None:
    replica = await world.replica()
    client = await _accepted(door)
    for step in Life(world, client.watch.run, "a").steps()[: 5 + seen]:
        await step()
    await client.take(seen)
    await world.promote(replica)
    door.hub.missed()
    await client.to_the_end()
    assert (client.code, len(client.frames)) == (code, seen)


@pytest.mark.parametrize("kept", [0, 1, None], ids=["before the claim", "behind one word", "not at all"])
async def test_idle_reader_of_a_run_that_fell_back_is_told_by_a_look_at_where_runs_stand(
    world: World, door: StreamDoor, kept: int | None
) -> None:
    """No push and no lost connection says it, and the run has stood there for two looks already."""
    replica = await world.replica()
    client = await _accepted(door)
    for number, step in enumerate(Life(world, client.watch.run, "a").steps()[: 5 + WORDS]):
        if kept is not None and number == 4 + kept:
            replica = await world.replica()
        await step()
    await client.take(WORDS)
    waiting = asyncio.create_task(client.to_the_end())
    for _ in range(2):
        await door.hub.look()
    assert not waiting.done()
    await world.promote(replica)
    await door.hub.look()
    await asyncio.wait_for(waiting, 10)
    assert (client.code, len(client.frames), client.authors) == ("upstream_interrupted", WORDS, {"a"})


@pytest.mark.parametrize("last", ["flush", "end"])
async def test_owner_that_is_ahead_of_the_server_may_write_nothing_more(world: World, house: House, last: str) -> None:
    """It has sent a frame that the server has no more; a hole in an answer is worse than its end, so that is what it
    gets, billed for what the stream still holds."""
    steps = [asyncio.Event() for _ in range(4)]
    lost: list[str] = []

    async def serve(lease: RunLease) -> None:
        for place in (0, 2):
            await lease.flush(b"words", 1)
            steps[place].set()
            await steps[place + 1].wait()
        fact = RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage())
        try:
            await (lease.flush(b"words", 1) if last == "flush" else lease.end(END, b"", 1, fact))
        except OwnerLost as error:
            lost.append(str(error))
            raise

    run = await _cleared(house)
    engine = await house.router(serve, idle_ms=60_000)
    await until(steps[0].is_set)
    replica = await world.replica()
    steps[1].set()
    await until(steps[2].is_set)
    await world.promote(replica)
    steps[3].set()
    await until(lambda: lost and engine.in_hand == 0)
    hands = Hands(world, run)
    assert lost and await hands.field("seq") == "2"
    assert (await hands.state(), await hands.kinds()) == ("ended", ["RequestFailed"])
    assert not await world.pending(LANE_KEY, "router")


async def _cleared(house: House) -> str:
    run = await house.accept()
    for family in FAMILIES:
        await house.world.scripts.verdict(answer(run, family))
    return run


async def test_run_in_hand_that_is_delivered_anew_is_claimed_anew_and_kept(world: World, house: House) -> None:
    """The claim of the first start is void; the second is kept by the beat and takes one place, not two."""
    leases: list[RunLease] = []
    go = asyncio.Event()

    async def serve(lease: RunLease) -> None:
        leases.append(lease)
        if len(leases) == 1:
            await lease.cancelled.wait()
            raise OwnerLost("told")
        await go.wait()
        fact = RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage())
        await lease.end(END, b"whole", 1, fact)

    run, places = await _cleared(house), Places()
    places.set({POOL: 10})
    replica = await world.replica()
    engine = await house.router(serve, places=places)
    await until(lambda: len(leases) == 1)
    await world.promote(replica)
    await until(lambda: len(leases) == 2 and leases[0].cancelled.is_set())
    assert engine.in_hand == 1 and places.in_hand[POOL] == 1
    go.set()
    hands = Hands(world, run)
    await until(lambda: engine.in_hand == 0)
    assert (await hands.state(), await hands.kinds()) == ("ended", ["RequestCompleted"])
    assert not await world.pending(LANE_KEY, "router") and places.in_hand[POOL] == 0


async def test_entry_in_hand_that_is_delivered_anew_is_handled_once_more_at_most(world: World, house: House) -> None:
    """A check that is under way goes on; its answer acknowledges the new delivery too."""
    runs: list[str] = []
    go = asyncio.Event()

    async def check(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        runs.extend(delivery.run for delivery in deliveries)
        await go.wait()
        return [Done() for _ in deliveries]

    run = await house.accept()
    await (await world.groups()).ensure(REQUESTS, "rules")
    replica = await world.replica()
    engine = await house.engine(check, idle_ms=5_000)
    await until(lambda: runs == [run])
    await world.promote(replica)
    await until(lambda: world.pending(REQUESTS, "rules"))
    assert engine.in_hand == 1
    go.set()
    await until(house.settled)
    assert runs == [run] and engine.in_hand == 0


# --- who is in charge -------------------------------------------------------------------------------------------------


@dataclass
class _Steady:
    """A connection, as far as Calm looks at it."""

    lost: int = 0

    async def losses(self) -> int:
        return self.lost


async def test_tenure_begins_anew_when_another_server_is_in_charge(world: World) -> None:
    assert await world.scripts.tenure(P) == 0

    async def older() -> bool:
        return await world.scripts.tenure(P) > 0

    await until(older)
    await world.promote(await world.replica())
    assert await world.scripts.tenure(P) == 0 and await world.scripts.tenure(prefix(PARTITION + 1)) == 0
    await until(older)


async def test_nothing_is_taken_over_within_one_idle_limit_of_a_failover() -> None:
    """A bent clock over the twin: the old primary and its replica had been there for a day."""
    clock = FakeClock()
    server = MemoryServer(clock)
    calm = Calm(_Steady().losses, MemoryScripts(server, 1_000), clock, idle_ms=15_000)
    assert not await calm.reached(REQUESTS)
    clock.advance(86_400)
    assert await calm.reached(REQUESTS)
    server.promote(server.replica())
    assert not await calm.reached(REQUESTS)
    clock.advance(14.9)
    assert not await calm.reached(REQUESTS)
    clock.advance(0.1)
    assert await calm.reached(REQUESTS)


async def test_a_look_asks_who_is_in_charge_after_a_new_connection_and_not_each_time() -> None:
    class Asked(MemoryScripts):
        times = 0

        async def tenure(self, p: str) -> float:
            self.times += 1
            return await super().tenure(p)

    clock, groups = FakeClock(), _Steady()
    asked = Asked(MemoryServer(clock), 1_000)
    calm = Calm(groups.losses, asked, clock, idle_ms=15_000)
    for _ in range(3):
        await calm.watch(REQUESTS)
    assert asked.times == 1
    clock.advance(15)
    assert await calm.reached(REQUESTS), "its time began with the first look, not with the first silence"
    groups.lost += 1
    times = asked.times
    for _ in range(3):
        await calm.watch(REQUESTS)
    assert asked.times == times + 1


async def test_nothing_is_taken_over_within_one_idle_limit_of_a_lost_connection() -> None:
    clock, groups = FakeClock(), _Steady()
    calm = Calm(groups.losses, MemoryScripts(MemoryServer(clock), 1_000), clock, idle_ms=15_000)
    await calm.reached(REQUESTS)
    clock.advance(3_600)
    assert await calm.reached(REQUESTS)
    groups.lost += 1
    assert not await calm.reached(REQUESTS)
    clock.advance(15)
    assert await calm.reached(REQUESTS)
