"""What one poisoned entry in a hundred costs the others.

Poison is an entry on a stream that the groups there cannot handle: bytes that are no event, an event under a forged
signature, an event whose handler fails. Promises: every one is a dead letter with its reason after at most three
starts, no request fails, and the p99 of the others is within a tenth of what it is without poison.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from bench import windows
from bench.client import Plan
from bench.windows import Lengths, Others

#: Poisoned entries for one request.
SHARE = 0.01
#: An entry that is tried three times takes as long as the pause.
FULL, QUICK = Lengths(100, 6, 3, 7), Lengths(50, 1, 0, 1)
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: how often it was started, and why it is dead."""

    starts: int
    reason: str


@dataclass(slots=True)
class Row:
    """What was seen. expected: letters that the poison must make."""

    others: Others = field(default_factory=Others)
    injected: int = 0
    expected: int = 0
    letters: Sequence[Letter] = ()

    def broken(self, most: float = windows.MOST) -> list[str]:
        """The promises that did not hold. most: see windows.MOST."""
        found = self.others.broken(most)
        if len(self.letters) != self.expected:
            found.append(f"{len(self.letters)} dead letters of {self.expected}")
        if worst := [letter for letter in self.letters if letter.starts > 3 or not letter.reason]:
            found.append(f"letters after more than three starts or without a reason: {worst[:3]}")
        return found

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        most = max((letter.starts for letter in self.letters), default=0)
        return str(self.injected), str(len(self.letters)), str(most), *self.others.cells()


HEAD = ("poison", "letters", "most starts", *windows.HEAD)

#: Puts the nth poisoned entry somewhere; how many groups will find it.
Inject = Callable[[int], Awaitable[int]]


async def run(plan: Plan, inject: Inject, letters: Callable[[], Awaitable[Sequence[Letter]]], lengths: Lengths) -> Row:
    """The windows, then a look at the letters."""
    row = Row()

    async def poisoning() -> None:
        while True:
            row.injected += 1
            row.expected += await inject(row.injected)
            await asyncio.sleep(1 / (lengths.rate * SHARE))

    row.others = await windows.compare(plan, poisoning, lengths)
    end = monotonic() + _PATIENCE_S
    row.letters = await letters()
    while len(row.letters) < row.expected and monotonic() < end:
        await asyncio.sleep(0.2)
        row.letters = await letters()
    return row
