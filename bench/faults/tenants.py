"""The fair gate under load, on an engine that takes its time: what one tenant's flood costs the others, what weights
and lanes are worth."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.client import Plan
from bench.load import Load, Pace
from bench.stats import percentile

#: Promised: how much of the others' p95 wait one tenant may move.
MOVED = 0.2
LIGHT, FLOOD = 9, 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """An engine of so many slots whose answers have so many tokens: milliseconds to the first, and between two."""

    slots: int = 32
    ttft_ms: int = 200
    itl_ms: int = 20
    tokens: int = 11

    @property
    def capacity(self) -> float:
        """Answers a second."""
        return self.slots / (self.ttft_ms + self.itl_ms * (self.tokens - 1)) * 1000


@dataclass(frozen=True, slots=True)
class Waits:
    """The others' time to the first token (ms, p50 and p95), while one tenant asks for its share and for ten times."""

    calm: tuple[float, float]
    flood: tuple[float, float]
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
            f"p95 {self.flood[1]:.0f} ({self.moved:+.0%}); {self.errors} errors",
        ]


async def waits(light: Sequence[Plan], heavy: Plan, stage: Stage, seconds: float) -> Waits:
    """Both plays. Each asks for 60 % of what is his if all want as much; ten times that is more than is left."""
    share = 0.6 * stage.capacity / (LIGHT + 1)
    found, errors = [], 0
    for rate in (share, FLOOD * share):
        loads = await _play([*((plan, share) for plan in light), (heavy, rate)], seconds)
        first = sorted(ns / 1e6 for load in loads[:-1] for ns in load.tally.first_token)
        errors += sum(sum(load.tally.errors.values()) for load in loads[:-1])
        found.append((percentile(first, 0.5), percentile(first, 0.95)))
    return Waits(found[0], found[1], errors)


async def shares(plans: Mapping[str, Plan], stage: Stage, seconds: float) -> dict[str, float]:
    """Of all answers, the part of each, while each asks for all that the engine can."""
    loads = await _play([(plan, stage.capacity) for plan in plans.values()], seconds)
    answers = [load.tally.completed for load in loads]
    return {name: count / max(1, sum(answers)) for name, count in zip(plans, answers, strict=True)}


async def _play(asked: Sequence[tuple[Plan, float]], seconds: float) -> list[Load]:
    """All at once by the clock; the window opens when the queue stands. Whoever still waits at the end leaves."""
    loads = [Load(plan, Pace(0, rate, 0, 0, seconds, 60.0, 10_000)) for plan, rate in asked]
    drives = []
    for load, (_, rate) in zip(loads, asked, strict=True):
        drives.append(asyncio.create_task(load.open()))
        await asyncio.sleep(1 / rate / len(loads))  # nobody sends at the same moment as another
    await asyncio.sleep(2.0)
    for load in loads:
        load.tally.begin()
    await asyncio.sleep(seconds)
    for load in loads:
        load.tally.end()
        load.stop()
    await asyncio.gather(*drives)
    for load in loads:
        load.leave()
    return loads
