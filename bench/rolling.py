"""What a restart of one process costs while many streams are open: nothing, whatever kind of process it is.

For each kind of room there are two processes, the house's and one that joined. Streams are opened (at the door that
will go, when the kind is `ingress`), short requests go on beside them at the other door, then the one that joined gets
SIGTERM. Promises: every stream ends whole, no short request fails, the process ends by itself with exit code 0; until
then its /readyz says 503, and its log tells the steps of the stop sequence in their order (runtime/lifecycle.py).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from time import monotonic
from typing import Protocol

from bench.client import Connection, Plan
from bench.load import Load, Pace, chat_request
from bench.tally import Tally
from runtime.lifecycle import ORDER

#: Every kind of process, in the order of the corridor.
KINDS = ("ingress", "authorization", "rules", "persons", "router", "audit", "provisioner", "console")
_LAST = ("presence", "health", "postgres", "connections")  # of every process
SHORT = 1  # tokens of the requests beside the streams
_SHORT_RATE = 10.0
_PATIENCE_S = 60.0
_NOTICE_S, _LOOK_S = 0.05, 0.05  # seconds that a busy process may take to hear its signal; between two looks
_QUICK_S = 1.0  # whoever has ended by then need not have been asked


@dataclass(frozen=True, slots=True)
class Size:
    """How many streams of how many tokens, opened over so many seconds (their tokens then arrive evenly), and the
    engine's milliseconds between two tokens."""

    streams: int
    tokens: int
    opening_s: float
    itl_ms: float


FULL, QUICK = Size(200, 40, 2.0, 200.0), Size(40, 30, 0.5, 50.0)


class Victim(Protocol):
    """The process that is asked to end."""

    def terminate(self) -> None: ...

    def wait(self, seconds: float) -> int:
        """Its exit code; TimeoutError when it stays."""
        ...

    def ready(self) -> int:
        """What its /readyz says, 0 when nobody answers there."""
        ...

    def steps(self) -> Sequence[str]:
        """The steps of the stop sequence that its log tells."""
        ...


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the streams are opened and where the others ask. live: answers that the engine is giving now."""

    held_url: str
    other_url: str
    model: str
    key: str
    live: Callable[[], int]


@dataclass(slots=True)
class Row:
    """What came of one restart. others: short requests beside the streams. ended_s: from SIGTERM to the exit. ready:
    how often its /readyz was asked meanwhile, by what it said. steps: of its stop sequence, as its log tells them."""

    kind: str
    streams: int
    failed: int = 0
    others: int = 0
    others_failed: int = 0
    code: int = 0
    ended_s: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)
    ready: Counter[int] = field(default_factory=Counter)
    steps: Sequence[str] = ()

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        found = []
        if self.failed:
            found.append(f"{self.failed} of {self.streams} open streams failed: {dict(self.errors)}")
        if self.others_failed or not self.others:
            found.append(f"{self.others_failed} of {self.others} requests beside them failed: {dict(self.errors)}")
        if self.code:
            found.append(f"the process ended with code {self.code}")
        if self.ready[200] or (self.ended_s > _QUICK_S and not self.ready[503]):
            found.append(f"while it stopped its /readyz said {dict(self.ready)}")
        if wrong := out_of_order(self.steps):
            found.append(f"it stopped in another order: {wrong}")
        return found

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        return (
            self.kind, str(self.streams), str(self.failed), str(self.others), str(self.others_failed),
            f"{self.ended_s:.1f}", str(self.code), ", ".join(map(str, sorted(self.ready))) or "-",
            "out of order" if out_of_order(self.steps) else "as written",
        )  # fmt: skip


HEAD = (
    *("restarted", "open streams", "failed", "others", "failed", "ended after s", "exit code"),
    *("/readyz", "stop sequence"),
)


def out_of_order(steps: Sequence[str]) -> list[str]:
    """The steps whose place matters, when they are not in it or the last ones are missing; [] = as written."""
    seen = [step for step in steps if step in ORDER]
    well = seen == [step for step in ORDER if step in seen] and seen[-len(_LAST) :] == list(_LAST)
    return [] if well else seen or ["nothing"]


class Held:
    """Streams that are open at the same time, each asked for once."""

    def __init__(self, plan: Plan, size: Size) -> None:
        self.tally = Tally()
        self._plan, self._size = plan, size
        self._open: set[Connection] = set()

    async def open(self) -> None:
        """Connect and ask; the answers are not awaited."""
        loop, pause = asyncio.get_running_loop(), self._size.opening_s / self._size.streams
        for _ in range(self._size.streams):
            await loop.create_connection(
                lambda: Connection(self._plan, self.tally, self._idle, self._open.discard),
                self._plan.host,
                self._plan.port,
            )
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    def _idle(self, connection: Connection) -> None:
        if connection in self._open:
            connection.close()
        else:
            self._open.add(connection)
            connection.send()

    async def ended(self) -> None:
        """Until every answer has ended; what has not in time is a failure of its own kind."""
        with suppress(TimeoutError):
            await until(lambda: not any(one.sent_ns for one in self._open))
        for connection in list(self._open):
            connection.give_up("timeout")


async def run(kind: str, doors: Doors, victim: Victim, size: Size) -> Row:
    """One restart."""
    held = Held(_plan(doors.held_url, doors, size.tokens), size)
    others = Load(_plan(doors.other_url, doors, SHORT), Pace(0, _SHORT_RATE, 0, 0, 0, _PATIENCE_S, 64))
    await held.open()
    await until(lambda: doors.live() >= size.streams)
    drive = asyncio.create_task(others.open())
    begun = monotonic()
    victim.terminate()
    watching, ready = asyncio.Event(), Counter[int]()
    watch = asyncio.create_task(_watch(victim, ready, watching))
    code = await asyncio.to_thread(victim.wait, _PATIENCE_S)
    ended = monotonic() - begun
    watching.set()
    await watch
    await held.ended()
    others.stop()
    await drive
    await others.drain()
    return Row(
        kind,
        size.streams,
        failed=size.streams - held.tally.good,
        others=others.tally.sent,
        others_failed=others.tally.sent - others.tally.good,
        code=code,
        ended_s=ended,
        errors=held.tally.errors + others.tally.errors,
        ready=ready,
        steps=victim.steps(),
    )


async def _watch(victim: Victim, ready: Counter[int], over: asyncio.Event) -> None:
    """Ask for its readiness from a moment after its signal until it has ended; nobody answers at the very end."""
    await asyncio.sleep(_NOTICE_S)
    while not over.is_set():
        said = await asyncio.to_thread(victim.ready)
        if said:
            ready[said] += 1
        await asyncio.sleep(_LOOK_S)


def _plan(url: str, doors: Doors, tokens: int) -> Plan:
    host, port, request = chat_request(
        url, doors.model, doors.key, [], stream=True, usage=False, tokens=tokens, prompt_chars=100
    )
    return Plan(host, port, repeat(request), True, tokens)


async def until(what: Callable[[], bool], seconds: float = _PATIENCE_S) -> None:
    """Ask again and again, in a thread; TimeoutError when it stays false."""
    async with asyncio.timeout(seconds):
        while True:
            if await asyncio.to_thread(what):
                return
            await asyncio.sleep(0.05)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned."""
    whole = [head, *lines]
    widths = [max(len(line[column]) for line in whole) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in whole)
