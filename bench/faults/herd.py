"""Clients who come back all at once: their ingress dies under open streams, and each reads on, or asks again, as soon
as anybody listens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from bench.faults import wire
from bench.faults.said import Said
from bench.faults.waiting import until

TOKENS, ITL_MS = 30, 200  # streams of six seconds
#: Times that a client asks anew, and seconds it has for all.
_TRIES, _PATIENCE_S = 20, 120.0


@dataclass(slots=True)
class Row:
    """What became of the clients. back_s: from the death of the ingress until the last one had the whole answer."""

    clients: int
    whole: int = 0
    read_on: int = 0
    anew: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    back_s: list[float] = field(default_factory=list)

    def broken(self) -> list[str]:
        """Everybody must have a whole answer in the end."""
        left = self.clients - self.whole - self.read_on - self.anew
        return [f"{left} of {self.clients} clients never had their answer: {dict(self.lost)}"] if left else []

    def line(self) -> str:
        """For people."""
        last = f"{max(self.back_s):.1f} s after it" if self.back_s else "never"
        refused = f", refused on the way {dict(self.refused)}" if self.refused else ""
        return (
            f"{self.clients} clients of an ingress that died: {self.whole} were through, {self.read_on} read on, "
            f"{self.anew} asked anew{refused}; the last was answered {last}"
        )


async def run(base_url: str, key: str, model: str, clients: int, kill: Callable[[], object]) -> Row:
    """Open a stream for each, kill the ingress when all are open, wait for all."""
    row, said = Row(clients), [Said(f"herd-{number}", True) for number in range(clients)]
    struck: list[float] = []
    tasks = [asyncio.create_task(_client(base_url, key, model, one, row, struck)) for one in said]
    await until(lambda: all(one.events for one in said), "all streams to be open", 60)
    struck.append(monotonic())
    kill()
    await asyncio.gather(*tasks)
    return row


async def _client(base_url: str, key: str, model: str, said: Said, row: Row, struck: list[float]) -> None:
    await _ask(base_url, key, model, said)
    if said.whole:
        row.whole += 1
    elif said.cut and said.run:
        await _read_on(base_url, key, said, row)
    else:
        await _anew(base_url, key, model, said, row)
    if struck:
        row.back_s.append(monotonic() - struck[0])


async def _read_on(base_url: str, key: str, said: Said, row: Row) -> None:
    rest = await wire.replay(base_url, key, said.run, len(said.events))
    for _, data in rest.data:
        said.take(data)
    if rest.ended and rest.status == 200 and said.done and said.tokens == TOKENS:
        row.read_on += 1
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
