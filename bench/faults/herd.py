"""Clients who come back all at once: their ingress dies under open streams, and in the moment in which another one
listens half of them read on and half, who know nothing of that, ask again. Their first runs go on beside the new ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from bench.faults import wire
from bench.faults.said import Said
from bench.faults.waiting import until
from bench.stats import percentile

TOKENS = 30
#: Times that a client asks anew, and seconds it has for all.
_TRIES, _PATIENCE_S = 20, 120.0


@dataclass(slots=True)
class Row:
    """What became of the clients. opened_s: until all had a first event, who had asked in the same moment. away_s: from
    the death of the ingress until another one listened. first_s: seconds after that at which each had something again;
    back_s: at which each had the whole answer."""

    clients: int
    whole: int = 0
    read_on: int = 0
    anew: int = 0
    opened_s: float = 0.0
    away_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    first_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)

    def broken(self) -> list[str]:
        """Everybody must have a whole answer in the end."""
        left = self.clients - self.whole - self.read_on - self.anew
        return [f"{left} of {self.clients} clients never had their answer: {dict(self.lost)}"] if left else []

    def line(self) -> str:
        """For people."""
        refused = f", refused on the way {dict(self.refused)}" if self.refused else ""
        return (
            f"{self.clients} clients who asked at once all had a first event after {self.opened_s:.1f} s; the ingress "
            f"died, another one listened after {self.away_s:.1f} s: {self.whole} were through, {self.read_on} read on, "
            f"{self.anew} asked anew{refused}; their next event came after {_spread(self.first_s)} s, the whole answer "
            f"after {_spread(self.back_s)} s (p50, p99, most)"
        )


def _spread(seconds: list[float]) -> str:
    found = sorted(seconds)
    return ", ".join(f"{percentile(found, share):.1f}" for share in (0.5, 0.99, 1.0)) if found else "-"


@dataclass(slots=True)
class _Door:
    """When somebody listens again, and since when (monotonic); what its clients ask."""

    base_url: str
    key: str
    model: str
    open: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = 0.0

    async def ask(self, said: Said, on: Callable[[], None] = lambda: None) -> None:
        message = {"role": "user", "content": "Count."}
        body = {"model": self.model, "stream": True, "max_tokens": TOKENS, "messages": [message]}
        head = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        await wire.ask(self.base_url, head, body, said, _PATIENCE_S, lambda said: on())


async def run(base_url: str, key: str, model: str, clients: int, kill: Callable[[], object]) -> Row:
    """Open a stream for each, kill the ingress when all are open, wait for all."""
    row, door, begun = Row(clients), _Door(base_url, key, model), monotonic()
    said = [Said(f"herd-{number}", True) for number in range(clients)]
    tasks = [asyncio.create_task(_client(door, one, row, number % 2 == 1)) for number, one in enumerate(said)]
    await until(lambda: all(one.events for one in said), "all streams to be open", 60)
    struck = monotonic()
    row.opened_s = struck - begun
    kill()
    await until(lambda: any(one.cut for one in said), "a cut", 10)
    await wire.door(base_url)
    door.since = monotonic()
    row.away_s = door.since - struck
    door.open.set()
    await asyncio.gather(*tasks)
    return row


async def _client(door: _Door, said: Said, row: Row, forgetful: bool) -> None:
    await door.ask(said)
    if said.whole:
        row.whole += 1
        return
    await door.open.wait()
    first: list[float] = []

    def heard() -> None:
        first.append(monotonic() - door.since)

    if said.cut and said.run and not forgetful:
        await _read_on(door, said, row, heard)
    else:
        await _anew(door, said, row, heard)
    row.first_s += first[:1]
    row.back_s.append(monotonic() - door.since)


async def _read_on(door: _Door, said: Said, row: Row, heard: Callable[[], None]) -> None:
    rest = await wire.replay(door.base_url, door.key, said.run, len(said.events), on_data=lambda data: heard())
    for _, data in rest.data:
        said.take(data)
    if rest.ended and rest.status == 200 and said.done and said.tokens == TOKENS:
        row.read_on += 1
    else:
        row.lost[f"reading on: {rest.status}, {said.code or said.tokens}"] += 1


async def _anew(door: _Door, said: Said, row: Row, heard: Callable[[], None]) -> None:
    """A client that does not read on, at once; a refused one after a second."""
    for _ in range(_TRIES):
        said = Said(said.name, True)
        await door.ask(said, heard)
        if said.whole:
            row.anew += 1
            return
        row.refused[said.code or "cut"] += 1
        await asyncio.sleep(1.0)
    row.lost[f"asking anew: {said.status} {said.code}"] += 1
