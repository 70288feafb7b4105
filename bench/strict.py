"""What `strict` costs: acceptances a second and how long one takes, beside default ones.

    default   appendfsync everysec          always    appendfsync always: every run of that server is strict
    waitaof   everysec, WAITAOF believed (it is worth what the server's is)

`python -m bench.strict` takes turns between them, several rounds each, so that a busy machine hits them alike. Only the
door's step is measured, without HTTP and without checks.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from base.clock import SystemClock
from base.crypto import KeyRing, RingKey
from base.ids import SystemRandom
from console.embedded.valkey import EmbeddedValkey, ValkeySettings
from runtime.app import Context, RedisSettings, StrictSettings
from runtime.disk import Disk
from runtime.door import Bounds, StreamDoor
from runtime.topology import load
from schemas.events import RequestAccepted
from schemas.ports import NewRun

_CLOCK, _CHANCE = SystemClock(), SystemRandom()
_ROUNDS = 5
_SECONDS = 2.0  # of one round
_CLIENTS = (1, 64)  # who ask at once, each one after the other
_BODY = b"x" * 1000


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds. p50_ms, p99_ms: of one acceptance."""

    way: str
    clients: int
    per_s: float
    p50_ms: float
    p99_ms: float


def _request(run: str) -> RequestAccepted:
    return RequestAccepted(
        run=run,
        route="/v1/chat/completions",
        model="m",
        stream=False,
        key_id="k",
        secret_mac="0",
        mac_kid="b1",
        body_digest="0",
        body_bytes=len(_BODY),
        door="door",
        families=("authorization",),
    )


async def _client(door: StreamDoor, strict: bool, until: float, took: list[float]) -> None:
    while (began := perf_counter()) < until:
        new = NewRun(accepted=_request(door.mint()), body=_BODY, deadline_ms=60_000, strict=strict)
        (await door.accept(new)).close()
        took.append(perf_counter() - began)


async def _round(way: Way, clients: int) -> list[float]:
    took: list[float] = []
    until = perf_counter() + _SECONDS
    await asyncio.gather(*(_client(way.door, way.strict, until, took) for _ in range(clients)))
    await way.context.redis.execute("FLUSHALL")
    return took


@dataclass(frozen=True, slots=True)
class Way:
    """One of the three."""

    name: str
    strict: bool
    context: Context
    door: StreamDoor


async def _way(name: str, url: str) -> Way:
    ring = KeyRing([RingKey("b1", bytes(32))])
    c = await Context.open(RedisSettings(url=url), name, _CLOCK, _CHANCE, ring, load(), 1)
    disk = Disk(lambda: c.reader("disk"), 60_000, 5_000) if name == "waitaof" else await c.disk(StrictSettings())
    bounds, hands = Bounds(most_runs=1_000_000), c.seals("ingress")
    door = StreamDoor("door", 1, c.scripts, c.runs, hands, _CLOCK, _CHANCE, bounds, disk=disk)
    return Way(name, name != "default", c, door)


async def measure(urls: Mapping[str, str]) -> list[Row]:
    """Every way (name -> server) with every number of clients, in turn."""
    ways = [await _way(name, url) for name, url in urls.items()]
    rows = []
    for clients in _CLIENTS:
        took: dict[str, list[list[float]]] = {way.name: [] for way in ways}
        for _ in range(_ROUNDS):
            for way in ways:
                took[way.name].append(await _round(way, clients))
        rows += [_row(name, clients, rounds) for name, rounds in took.items()]
    for way in ways:
        await way.context.close()
    return rows


def _row(way: str, clients: int, rounds: Sequence[Sequence[float]]) -> Row:
    """Pure."""
    per_s = median(len(one) / _SECONDS for one in rounds)
    p50 = median(median(one) for one in rounds) * 1000
    p99 = median(quantiles(one, n=100)[98] if len(one) > 1 else one[0] for one in rounds) * 1000
    return Row(way, clients, per_s, p50, p99)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, with each one's share of the default's rate."""
    base = {row.clients: row.per_s for row in rows if row.way == "default"}
    lines = ["| clients | way | accepted/s | of default | p50 ms | p99 ms |", "|---|---|---|---|---|---|"]
    for row in rows:
        share = row.per_s / base[row.clients]
        figures = (f"{row.per_s:.0f}", f"{share:.2f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}")
        lines.append("| " + " | ".join((str(row.clients), row.way, *figures)) + " |")
    return "\n".join(lines)


def main() -> int:
    words = "Measure what strict acceptances cost."
    argparse.ArgumentParser(prog="python -m bench.strict", description=words).parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        servers = [
            EmbeddedValkey(Path(folder) / fsync, ValkeySettings("only-for-measuring", fsync=fsync, tied=True))
            for fsync in ("everysec", "always")
        ]
        try:
            for server in servers:
                server.start()
            urls = {"default": servers[0].url, "waitaof": servers[0].url, "always": servers[1].url}
            print(table(asyncio.run(measure(urls))))
        finally:
            for server in servers:
                server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
