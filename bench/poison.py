"""What one poisoned entry in a hundred costs the others: requests by the clock, in windows without and with poison.

The windows take turns, so that whatever else the machine does falls on both. Poison is an entry on a stream that the
groups there cannot handle: bytes that are no event, an event under a forged signature, an event whose handler fails.
Promises: every one is a dead letter with its reason after at most three starts, no request fails, and the p99 of the
others is within a tenth of what it is without poison.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from bench.client import Plan
from bench.load import Load, Pace
from bench.stats import milliseconds

#: Poisoned entries for one request.
SHARE = 0.01
#: What poison may make of the p99 of the others.
MOST = 1.10
_CALM_S = 3.0  # between two windows: an entry that is tried three times takes that long
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Requests a second, seconds of a window, windows of each kind."""

    rate: float
    window_s: float
    windows: int


FULL, QUICK = Lengths(100, 6, 6), Lengths(50, 1, 1)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: how often it was started, and why it is dead."""

    starts: int
    reason: str


@dataclass(slots=True)
class Row:
    """What was seen. quiet, poisoned: nanoseconds of each request. expected: letters that the poison must make."""

    quiet: list[int] = field(default_factory=list)
    poisoned: list[int] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    injected: int = 0
    expected: int = 0
    letters: Sequence[Letter] = ()

    @property
    def ratio(self) -> float:
        """p99 with poison for one without."""
        return milliseconds(self.poisoned)["p99"] / milliseconds(self.quiet)["p99"]

    def broken(self, most: float = MOST) -> list[str]:
        """The promises that did not hold. most: see MOST."""
        found = []
        if self.errors:
            found.append(f"requests failed: {self.errors}")
        if len(self.letters) != self.expected:
            found.append(f"{len(self.letters)} dead letters of {self.expected}")
        if worst := [letter for letter in self.letters if letter.starts > 3 or not letter.reason]:
            found.append(f"letters after more than three starts or without a reason: {worst[:3]}")
        if self.ratio > most:
            found.append(f"the p99 of the others became {self.ratio:.2f} times as long")
        return found

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        quiet, poisoned = milliseconds(self.quiet), milliseconds(self.poisoned)
        most = max((letter.starts for letter in self.letters), default=0)
        return (
            str(len(self.quiet) + len(self.poisoned)), str(sum(self.errors.values())), str(self.injected),
            str(len(self.letters)), str(most), f"{quiet['p50']:.1f} / {quiet['p99']:.1f}",
            f"{poisoned['p50']:.1f} / {poisoned['p99']:.1f}", f"{self.ratio:.2f}",
        )  # fmt: skip


HEAD = ("requests", "failed", "poison", "letters", "most starts", "p50 / p99 ms without", "with", "p99 ratio")

#: Puts the nth poisoned entry somewhere; how many groups will find it.
Inject = Callable[[int], Awaitable[int]]


async def run(plan: Plan, inject: Inject, letters: Callable[[], Awaitable[Sequence[Letter]]], lengths: Lengths) -> Row:
    """The windows in turns, then a look at the letters."""
    row = Row()
    load = Load(plan, Pace(0, lengths.rate, 0, 0, 0, _PATIENCE_S, 256))
    drive = asyncio.create_task(load.open())
    await asyncio.sleep(1.0)
    for _ in range(lengths.windows):
        row.quiet += await _window(load, _nothing(), lengths)
        row.poisoned += await _window(load, _poisoning(row, inject, lengths.rate * SHARE), lengths)
    load.stop()
    await drive
    await load.drain()
    row.errors = dict(load.tally.errors)
    end = monotonic() + _PATIENCE_S
    row.letters = await letters()
    while len(row.letters) < row.expected and monotonic() < end:
        await asyncio.sleep(0.2)
        row.letters = await letters()
    return row


async def _window(load: Load, beside: Awaitable[None], lengths: Lengths) -> list[int]:
    """The latencies of what ended well in one window."""
    seen = len(load.tally.latency)
    task = asyncio.ensure_future(beside)
    load.tally.begin()
    await asyncio.sleep(lengths.window_s)
    load.tally.end()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(_CALM_S)
    return load.tally.latency[seen:]


async def _nothing() -> None:
    """No poison."""


async def _poisoning(row: Row, inject: Inject, rate: float) -> None:
    """So many entries a second, until it is cancelled."""
    while True:
        row.expected += await inject(row.injected)
        row.injected += 1
        await asyncio.sleep(1 / rate)
