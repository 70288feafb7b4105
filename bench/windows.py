"""What something costs the others: requests by the clock, in windows without it and with it, turn by turn.

The windows take turns so that whatever else the machine does falls on both, and each is compared with its neighbour:
the figure is the median of the pairs' ratios.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import chain
from statistics import median

from bench.client import Plan
from bench.load import Load, Pace
from bench.stats import milliseconds

#: What it may make of the p99 of the others.
MOST = 1.10
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Requests a second; seconds of a window, of the pause after it, of a sort; how many windows of each sort."""

    rate: float
    window_s: float
    pause_s: float
    windows: int


@dataclass(slots=True)
class Others:
    """What the others saw: nanoseconds of each request by window, and what failed at any time."""

    without: list[list[int]] = field(default_factory=list)
    beside: list[list[int]] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """p99 with it for one without, pair by pair, in order of size."""
        pairs = zip(self.without, self.beside, strict=True)
        return sorted(milliseconds(with_it)["p99"] / milliseconds(quiet)["p99"] for quiet, with_it in pairs)

    @property
    def requests(self) -> int:
        return sum(map(len, (*self.without, *self.beside)))

    def broken(self, most: float = MOST) -> list[str]:
        """The promises that did not hold."""
        found = [f"requests failed: {self.errors}"] if self.errors else []
        if median(self.ratios) > most:
            found.append(f"the p99 of the others became {median(self.ratios):.2f} times as long")
        return found

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        quiet, beside = (milliseconds(chain.from_iterable(seen)) for seen in (self.without, self.beside))
        low, *_, high = self.ratios if len(self.ratios) > 1 else self.ratios * 2
        return (
            str(self.requests), str(sum(self.errors.values())), f"{quiet['p50']:.1f} / {quiet['p99']:.1f}",
            f"{beside['p50']:.1f} / {beside['p99']:.1f}", f"{median(self.ratios):.2f} ({low:.2f}..{high:.2f})",
        )  # fmt: skip


HEAD = ("requests", "failed", "p50 / p99 ms without", "beside it", "p99 ratio of pairs")


async def compare(plan: Plan, beside: Callable[[], Awaitable[None]], lengths: Lengths) -> Others:
    """The windows in turns. beside: begun with each second window, cancelled at its end."""
    found = Others()
    load = Load(plan, Pace(0, lengths.rate, 0, 0, 0, _PATIENCE_S, 256))
    drive = asyncio.create_task(load.open())
    await asyncio.sleep(1.0)
    for _ in range(lengths.windows):
        found.without.append(await _window(load, _nothing, lengths))
        found.beside.append(await _window(load, beside, lengths))
    load.stop()
    await drive
    await load.drain()
    found.errors = dict(load.tally.errors)
    return found


async def _window(load: Load, beside: Callable[[], Awaitable[None]], lengths: Lengths) -> list[int]:
    """The latencies of what ended well in one window."""
    seen = len(load.tally.latency)
    task = asyncio.ensure_future(beside())
    load.tally.begin()
    await asyncio.sleep(lengths.window_s)
    load.tally.end()
    task.cancel()
    [ended] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended
    await asyncio.sleep(lengths.pause_s)
    return load.tally.latency[seen:]


async def _nothing() -> None:
    """A quiet window."""
