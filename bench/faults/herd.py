"""Clients who come back all at once: their ingress dies under open streams, and each reads on, or asks again, in the
moment in which another one listens."""

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
    """What became of the clients. away_s: from the death of the ingress until another one listened. first_s: seconds
    after that at which each had something again; back_s: at which each had the whole answer."""

    clients: int
    whole: int = 0
    read_on: int = 0
    anew: int = 0
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
            f"{self.clients} clients of an ingress that died: {self.whole} were through, {self.read_on} read on, "
            f"{self.anew} asked anew{refused}; {self.away_s:.1f} s until another one listened, then their next event "
            f"came after {_spread(self.first_s)} s, the whole answer after {_spread(self.back_s)} s (p50, p99, most)"
        )


def _spread(seconds: list[float]) -> str:
    found = sorted(seconds)
    return ", ".join(f"{percentile(found, share):.1f}" for share in (0.5, 0.99, 1.0)) if found else "-"


@dataclass(slots=True)
class _Door:
    """When somebody listens again, and since when (monotonic)."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = 0.0


async def run(base_url: str, key: str, model: str, clients: int, kill: Callable[[], object]) -> Row:
    """Open a stream for each, kill the ingress when all are open, wait for all."""
    row, door = Row(clients), _Door()
    said = [Said(f"herd-{number}", True) for number in range(clients)]
    tasks = [asyncio.create_task(_client(base_url, key, model, one, row, door)) for one in said]
    await until(lambda: all(one.events for one in said), "all streams to be open", 60)
    struck = monotonic()
    kill()
    await until(lambda: any(one.cut for one in said), "a cut", 10)
    await wire.door(base_url)
    door.since = monotonic()
    row.away_s = door.since - struck
    door.open.set()
    await asyncio.gather(*tasks)
    return row


async def _client(base_url: str, key: str, model: str, said: Said, row: Row, door: _Door) -> None:
    await _ask(base_url, key, model, said)
    if said.whole:
        row.whole += 1
        return
    await door.open.wait()
    if said.cut and said.run:
        await _read_on(base_url, key, said, row, door)
    else:
        await _anew(base_url, key, model, said, row)
    row.back_s.append(monotonic() - door.since)


async def _read_on(base_url: str, key: str, said: Said, row: Row, door: _Door) -> None:
    first: list[float] = []

    def heard(data: bytes) -> None:
        if not first:
            first.append(monotonic() - door.since)

    rest = await wire.replay(base_url, key, said.run, len(said.events), on_data=heard)
    for _, data in rest.data:
        said.take(data)
    if rest.ended and rest.status == 200 and said.done and said.tokens == TOKENS:
        row.read_on += 1
        row.first_s += first
    else:
        row.lost[f"reading on: {rest.status}, {said.code or said.tokens}"] += 1


async def _anew(base_url: str, key: str, model: str, said: Said, row: Row) -> None:
    """A client that was refused, or cut before it knew its run."""
    for _ in range(_TRIES):
        row.refused[said.code or "cut"] += 1
        await asyncio.sleep(1.0)
        said = Said(said.name, True)
        await _ask(base_url, key, model, said)
        if said.whole:
            row.anew += 1
            return
    row.lost[f"asking anew: {said.status} {said.code}"] += 1


async def _ask(base_url: str, key: str, model: str, said: Said) -> None:
    message = {"role": "user", "content": "Count."}
    body = {"model": model, "stream": True, "max_tokens": TOKENS, "messages": [message]}
    head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    await wire.ask(base_url, head, body, said, _PATIENCE_S, lambda said: None)
