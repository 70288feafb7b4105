"""What a schedule is made of. Every step is a value that can be left out, and acts on whatever is there by then.

Publish Repeat Resume Leave Cancel   clients      Crash Pause GoOn Drain Skew     processes
Outage Failover RecordOutage    servers           Trap                            a fault at a chosen call
Advance                         time              Duplicate Poison                entries from nowhere
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.simulation import settings, wire
from tests.simulation.clients import Seen
from tests.simulation.fleet import PLANS, Said
from tests.simulation.world import House, P, World

#: Gives a whole number in [low, high]: a seeded generator's.
Pick = Callable[[int, int], int]

#: Where traps lie: names of calls, each of which a world really makes (test_simulation).
DOOR_CALLS = ("accept", "accept_once", "frames", "fields", "watch", "cancel", "end", "find_once")
WORKER_CALLS = (
    *("verdicts", "verdicts", "claim", "claim", "flush", "flush", "flush", "end", "end", "end", "beat", "take", "dead"),
    *("ack", "mark", "read", "read", "reserve", "settle", "write", "announce", "checking_body", "release", "fields"),
)
_WAITS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
_STREAMS = ("requests", "facts", "cleared:pool:interactive")
_WISHES = ("", "", "", "", "", "cancel", "grace:1", "finish")
_EXTRAS = ("", "", "", "", settings.EMAIL, settings.PERSON, settings.BANNED)


class Step(Protocol):
    """One thing that is done to a world."""

    def play(self, world: World) -> None: ...


@dataclass(frozen=True, slots=True)
class Publish:
    """plan: what the engines do, call by call (fleet.PLANS)."""

    door: int
    key: int
    stream: bool
    plan: str
    words: int
    gap_ms: int
    extra: str
    once: int = 0
    wish: str = ""

    def play(self, world: World) -> None:
        said = Said(self.plan, self.words, self.gap_ms, self.extra)
        world.publish(self.door, settings.TOKENS[self.key], self.stream, said, self.once, self.wish)


@dataclass(frozen=True, slots=True)
class Repeat:
    """One of the requests with an Idempotency-Key comes again."""

    door: int
    which: int
    wish: str = ""

    def play(self, world: World) -> None:
        world.repeat(self.door, self.which, self.wish)


@dataclass(frozen=True, slots=True)
class Advance:
    ms: int

    def play(self, world: World) -> None:
        world.advance(self.ms / 1000)


@dataclass(frozen=True, slots=True)
class Crash:
    process: int

    def play(self, world: World) -> None:
        world.kill(world.process(self.process))


@dataclass(frozen=True, slots=True)
class Pause:
    process: int

    def play(self, world: World) -> None:
        world.stop(world.process(self.process))


@dataclass(frozen=True, slots=True)
class GoOn:
    process: int

    def play(self, world: World) -> None:
        world.go_on(world.process(self.process))


@dataclass(frozen=True, slots=True)
class Drain:
    process: int

    def play(self, world: World) -> None:
        world.drain(world.process(self.process))


@dataclass(frozen=True, slots=True)
class Skew:
    """A wall clock is off from now on, by up to ten minutes."""

    process: int
    seconds: int

    def play(self, world: World) -> None:
        world.process(self.process).clock.skew_ms = self.seconds * 1000
        world.happened.counts["skews"] += 1


@dataclass(frozen=True, slots=True)
class Trap:
    process: int
    call: str
    nth: int
    what: wire.What
    after: bool

    def play(self, world: World) -> None:
        trap = wire.Trap(self.call, self.nth, self.what, self.after)
        world.process(self.process).wire.traps.append(trap)


@dataclass(frozen=True, slots=True)
class Outage:
    ms: int

    def play(self, world: World) -> None:
        world.take_away(self.ms / 1000)


@dataclass(frozen=True, slots=True)
class Failover:
    """lose: writes that the new server has not heard of."""

    lose: int

    def play(self, world: World) -> None:
        world.fail_over(self.lose)


@dataclass(frozen=True, slots=True)
class RecordOutage:
    ms: int

    def play(self, world: World) -> None:
        world.take_record_away(self.ms / 1000)


@dataclass(frozen=True, slots=True)
class Leave:
    client: int

    def play(self, world: World) -> None:
        everyone: list[Seen] = [*world.askers, *world.resumers]
        clients = [one for one in everyone if not one.over]
        if clients:
            world.happened.counts["leaves"] += 1
            clients[self.client % len(clients)].leave(world.loop.time())


@dataclass(frozen=True, slots=True)
class Cancel:
    run: int
    door: int

    def play(self, world: World) -> None:
        world.cancel(self.run, self.door)


@dataclass(frozen=True, slots=True)
class Resume:
    run: int
    door: int
    after: int

    def play(self, world: World) -> None:
        world.resume(self.run, self.door, self.after)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The last entry of a stream lies in it once more."""

    stream: str

    def play(self, world: World) -> None:
        found = world.redis.twins.memory.streams.get(f"{P}:{self.stream}")
        if found is not None and found.entries:
            world.happened.counts["duplicates"] += 1
            fields = list(found.entries.values())[-1]
            world.add(f"{P}:{self.stream}", {name.decode(): value for name, value in fields.items()})


@dataclass(frozen=True, slots=True)
class Poison:
    """An entry that nobody can read."""

    stream: str

    def play(self, world: World) -> None:
        if f"{P}:{self.stream}" in world.redis.twins.memory.streams:
            world.happened.counts["poisons"] += 1
            world.add(f"{P}:{self.stream}", {"e": b"{not an event", "s": b"?"})


@dataclass(frozen=True, slots=True)
class Schedule:
    """A play: a house, and what is done to it."""

    house: House
    steps: tuple[Step, ...]


# --- composing ----------------------------------------------------------------------------------------------------


def compose(pick: Pick) -> Schedule:
    """A schedule, as `pick` decides: requests first, then whatever happens to them."""
    seed = pick(0, 2**32 - 1)
    policy = ("cancel", "cancel", "finish", "grace:1")[pick(0, 3)]
    continues = ("", "", "e1 e2 e3", "e2 e3")[pick(0, 3)]
    steps: list[Step] = [*_publish(pick)]
    known = _STEPS if pick(0, 7) else _CALM
    for _ in range(pick(2, 24)):
        steps += known[pick(0, len(known) - 1)](pick)
    return Schedule(House(seed, policy, continues, workers=2 if seed % 3 else 1), tuple(steps))


def _publish(pick: Pick) -> list[Step]:
    plan = ",".join(_PLANS[pick(0, len(_PLANS) - 1)] for _ in range(pick(1, 3)))
    said = Publish(
        door=pick(0, 1),
        key=(0, 0, 0, 1, 1, 1, 1, 2)[pick(0, 7)],
        stream=pick(0, 3) > 0,
        plan=plan,
        words=pick(1, 8),
        gap_ms=(0, 0, 5, 50, 500)[pick(0, 4)],
        extra=_EXTRAS[pick(0, len(_EXTRAS) - 1)],
        once=(0, 0, 0, 1, 1, 1, 2, 2)[pick(0, 7)],
        wish=_WISHES[pick(0, len(_WISHES) - 1)],
    )
    return [said]


def _repeat(pick: Pick) -> list[Step]:
    """A request comes again, once or several times at once."""
    again = [Repeat(pick(0, 1), pick(0, 7), _WISHES[pick(0, len(_WISHES) - 1)]) for _ in range(pick(1, 2))]
    return [*(_advance(pick) if pick(0, 1) else []), *again]


def _desert(pick: Pick) -> list[Step]:
    """The only client of a long answer leaves, once silence is believed, and its door may die."""
    long = Publish(0, 0, True, "good", 20, 500, "", pick(0, 1), _WISHES[pick(0, len(_WISHES) - 1)])
    crash: list[Step] = [Crash(pick(0, 1))] if pick(0, 1) else []
    calm: list[Step] = [] if pick(0, 2) else [Advance(9000)]
    return [*calm, long, Advance(pick(1, 20) * 100), Leave(pick(0, 1)), Advance(20), *crash]


def _trap(pick: Pick) -> list[Step]:
    """A fault at the next calls of a process, and mostly something that makes it call."""
    process = pick(0, 4)  # three times in five a worker
    known = DOOR_CALLS if process < 2 else WORKER_CALLS
    what: tuple[wire.What, ...] = ("crash", "crash", "pause", "lose_reply", "lose_reply")
    trap = Trap(min(process, 3), known[pick(0, len(known) - 1)], pick(1, 3), what[pick(0, 4)], pick(0, 1) == 1)
    return [trap, *(_publish(pick) if pick(0, 3) else [])]


def _advance(pick: Pick) -> list[Step]:
    return [Advance(_WAITS_MS[pick(0, len(_WAITS_MS) - 1)])]


def _sleepwalk(pick: Pick) -> list[Step]:
    """A process stops for about as long as it takes until others take its work, and goes on with it; mostly while it
    waits for an engine's first word."""
    process = pick(2, 3)
    slow = Publish(pick(0, 1), 0, True, "slow", pick(1, 4), 0, "")
    asked: list[Step] = [slow, Advance(pick(1, 20) * 100)] if pick(0, 3) else []
    return [*asked, Pause(process), Advance(pick(14, 75) * 100), GoOn(process)]


_PLANS = (*(["good"] * 8), *PLANS)
Maker = Callable[[Pick], Sequence[Step]]
#: What clients do, and what happens in the best of houses.
_CALM: tuple[Maker, ...] = (
    *([_publish] * 6),
    *([_advance] * 8),
    *([_repeat] * 3),
    _desert,
    lambda pick: [Skew(pick(0, 3), pick(-600, 600))],
    *([lambda pick: [Leave(pick(0, 7))]] * 2),
    lambda pick: [Cancel(pick(0, 7), pick(0, 1))],
    *([lambda pick: [Resume(pick(0, 7), pick(0, 1), pick(0, 5))]] * 2),
)
#: And what else can happen.
_STEPS: tuple[Maker, ...] = (
    *_CALM,
    *([_trap] * 5),
    *([_sleepwalk] * 2),
    lambda pick: [Crash(pick(0, 3))],
    lambda pick: [Crash(pick(2, 3))],
    lambda pick: [Pause(pick(0, 3))],
    *([lambda pick: [GoOn(pick(0, 3))]] * 2),
    lambda pick: [Drain(pick(0, 3))],
    lambda pick: [Outage(pick(1, 30) * 100)],
    lambda pick: [Failover(pick(0, 12))],
    lambda pick: [RecordOutage(pick(1, 50) * 100)],
    lambda pick: [Duplicate(_STREAMS[pick(0, 2)])],
    lambda pick: [Poison(_STREAMS[pick(0, 2)])],
)
