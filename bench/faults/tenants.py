"""The fair gate under load, on an engine that takes its time: what one tenant's flood costs the others, what weights,
lanes and priorities are worth.

The engine is what is scarce, not the machine: 96 answers at once, a second to the first token, 40 ms to each next one,
16 to 36 tokens, as a mid-sized model on one GPU. That is 48 answers and 1,200 tokens a second, a fraction of what the
gateway, the engine's stand-in and the load cost on two cores. So a wait of a tenth of a second is the gate's doing, and
that of a busy machine is lost in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from bench.client import Plan
from bench.load import Load, Pace, chat_request, side_by_side
from bench.stats import percentile

#: Promised: how much of the others' p95 wait one tenant may move.
MOVED = 0.2
LIGHT, FLOOD = 9, 10.0
_LENGTHS = (26, 17, 35, 21, 31, 16, 36, 24, 28)  # tokens of the answers of one client, in turn; 26 in the mean
_QUEUE_S = 4.0  # until the queue of a play stands


@dataclass(frozen=True, slots=True)
class Stage:
    """An engine of so many slots: milliseconds to the first token, and between two."""

    slots: int = 96
    ttft_ms: int = 1_000
    itl_ms: int = 40

    @property
    def capacity(self) -> float:
        """Answers a second."""
        mean = sum(_LENGTHS) / len(_LENGTHS)
        return self.slots / (self.ttft_ms + self.itl_ms * (mean - 1)) * 1000


@dataclass(frozen=True, slots=True)
class Waits:
    """The others' time to the first token (ms, p50 and p95), while one tenant asks for its share and for ten times."""

    calm: tuple[float, float]
    flood: tuple[float, float]
    heavy: tuple[float, float]
    errors: int

    @property
    def moved(self) -> float:
        return self.flood[1] / self.calm[1] - 1

    def missed(self) -> list[str]:
        if self.moved < MOVED:
            return []
        return [f"a tenant at {FLOOD:g}x moved the others' p95 wait by {self.moved:.0%}, promised is < {MOVED:.0%}"]

    def broken(self) -> list[str]:
        return [f"{self.errors} of the others' requests failed"] if self.errors else []

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{LIGHT} tenants' first token beside one at its share: p50 {self.calm[0]:.0f} ms, p95 {self.calm[1]:.0f}",
            f"{LIGHT} tenants' first token beside one at {FLOOD:g}x:     p50 {self.flood[0]:.0f} ms, "
            f"p95 {self.flood[1]:.0f} ({self.moved:+.0%}); {self.errors} errors; "
            f"its own: p50 {self.heavy[0]:.0f}, p95 {self.heavy[1]:.0f}",
        ]


@dataclass(frozen=True, slots=True)
class Promised:
    """Parts of all answers by name, and how far a part may be from it."""

    title: str
    parts: Mapping[str, float]
    within: float


#: One turn in ten is the batch lane's; the rest goes by weight.
LANES = Promised("weights and lanes", {"weight 3": 0.675, "weight 1": 0.225, "batch": 0.1}, 0.03)
#: A priority can be given up, not won: whoever asks for more is served as by the key's own, and who asks for less last.
PRIORITIES = Promised("priorities", {"usual": 0.5, "asks for 10": 0.5, "asks for -10": 0.0}, 0.04)


@dataclass(frozen=True, slots=True)
class Shares:
    """What part of a full engine each had."""

    title: str
    seen: Mapping[str, float]
    promised: Mapping[str, float]
    within: float

    def missed(self) -> list[str]:
        return [
            f"{self.title}: {name} had {self.seen[name]:.0%} of the answers, promised are {part:.0%}"
            for name, part in self.promised.items()
            if abs(self.seen[name] - part) > self.within
        ]

    def line(self) -> str:
        """For people."""
        parts = (f"{name} {self.seen[name]:.1%} (promised {part:.1%})" for name, part in self.promised.items())
        return f"Shares of a full engine, {self.title}: " + ", ".join(parts)


def plan(url: str, model: str, token: str, headers: Sequence[str], stage: Stage) -> Plan:
    """What one client asks for: streams of many lengths."""
    made = [
        chat_request(url, model, token, list(headers), stream=True, usage=False, tokens=tokens, prompt_chars=100)
        for tokens in _LENGTHS
    ]
    host, port, _ = made[0]
    return Plan(host, port, cycle([request for _, _, request in made]), True)


async def waits(
    light: Sequence[Plan], heavy: Plan, stage: Stage, seconds: float, rest: Callable[[], Awaitable[None]]
) -> Waits:
    """Both plays. Each asks for 60 % of what is his if all want as much; ten times that is more than is left."""
    share = 0.6 * stage.capacity / (LIGHT + 1)
    plays = []
    for rate in (share, FLOOD * share):
        plays.append(await _play([*((plan, share) for plan in light), (heavy, rate)], seconds))
        await rest()
    calm, flood = plays
    errors = sum(sum(load.tally.errors.values()) for loads in plays for load in loads[:-1])
    return Waits(_first(calm[:-1]), _first(flood[:-1]), _first(flood[-1:]), errors)


def _first(loads: Sequence[Load]) -> tuple[float, float]:
    first = sorted(ns / 1e6 for load in loads for ns in load.tally.first_token)
    return percentile(first, 0.5), percentile(first, 0.95)


async def shares(plans: Mapping[str, Plan], promised: Promised, stage: Stage, seconds: float) -> Shares:
    """Each asks for all that the engine can, but for the others."""
    loads = await _play([(plan, stage.capacity) for plan in plans.values()], seconds)
    answers = [load.tally.completed for load in loads]
    seen = {name: count / max(1, sum(answers)) for name, count in zip(plans, answers, strict=True)}
    return Shares(promised.title, seen, promised.parts, promised.within)


async def _play(asked: Sequence[tuple[Plan, float]], seconds: float) -> list[Load]:
    """All at once; the window opens when the queue stands. Whoever still waits at the end leaves."""
    loads = [Load(plan, Pace(0, rate, 0, _QUEUE_S, seconds, 600.0, 10_000)) for plan, rate in asked]
    await side_by_side(loads, _QUEUE_S, seconds)
    for load in loads:
        load.leave()
    return loads
