"""Plays what Headrace promises about restarts, poison, hostile clients and outages, and prints what was seen.

    rolling   each kind of process is restarted with 200 open streams                    (about 2 minutes)
    hostile   clients that send what is no HTTP, too much or too slowly                  (about 2 minutes)
    poison    one entry in a hundred that no group can handle                            (about 2 minutes)
    outage    Redis dies, stays away for five seconds and comes back                     (under a minute)
    trust     what signing and sealing cost                                              (seconds)

Starts a scripted engine and a fresh Headrace with a process per room in a temporary folder. Exit code 0 when every
promise held, 1 when one did not. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

from base.clock import SystemClock
from base.crypto import KeyRing, new_ring_key
from base.ids import SystemRandom
from bench import hostile, outage, poison, rolling, rolling_play, trust
from bench.client import Plan
from bench.load import chat_request
from bench.windows import Lengths
from runtime.client import Address, Client
from runtime.dlq import DeadLetters
from runtime.names import lane_key, prefix
from runtime.seals import Seals
from schemas import envelope as wire
from tests.e2e.house import Engine, House, headrace, scripted_engine
from tests.engine_support import request


@contextmanager
def split_house(folder: Path, engine: Engine) -> Iterator[House]:
    """A process per room."""
    with headrace(folder, "--processes", "split", "--no-model", engines={"mock": engine.url}) as house:
        yield house


def roll(folder: Path) -> list[rolling.Row]:
    """Restart one process of each kind under open streams."""
    size = rolling.FULL
    with scripted_engine("--itl-ms", str(size.itl_ms)) as engine, split_house(folder, engine) as house:
        rows = []
        for kind in rolling.KINDS:
            say(f"{kind} ...")
            rows.append(asyncio.run(rolling_play.restart(house, engine, [kind], size, "mock")))
        return rows


class Poisoner:
    """Writes entries that no group can handle into the Redis of a house, one kind after the other."""

    def __init__(self, house: House, redis: Client) -> None:
        self._redis, self._clock, self._chance = redis, SystemClock(), SystemRandom()
        self._ring = KeyRing.parse(str(house.overrides()["secrets.keyring"]))
        self._stranger = KeyRing([new_ring_key(self._chance, self._ring.current)])
        p = prefix(0)
        self._places = (
            (f"{p}:requests", 3),
            (f"{p}:facts", 2),
            (lane_key(p, "mock", "interactive"), 1),
            ("commands", 1),
        )

    async def inject(self, number: int) -> int:
        """The nth: bytes that are no event, somewhere; an acceptance under a forged signature; one whose handlers
        fail, since there is no such run. How many groups read it."""
        key, readers = self._places[number // 3 % len(self._places)]
        fields = {"e": b"no event", "s": b""}
        if number % 3:
            key, readers = self._places[0]
            fields = self._acceptance(self._stranger if number % 3 == 1 else self._ring)
        await self._redis.execute("XADD", key, "*", *(part for pair in fields.items() for part in pair))
        return readers

    def _acceptance(self, ring: KeyRing) -> dict[str, bytes]:
        signer = Seals(ring, "ingress", self._clock, self._chance).signer
        e = wire.encode(request("no run"), id="no run", by="ingress", run="no run", deadline_ms=60_000)
        return {"e": e, "s": wire.sign(signer, "requests", e).s}

    async def letters(self) -> list[poison.Letter]:
        """All dead letters of the house."""
        seals = Seals(self._ring, "console", self._clock, self._chance)
        found = await DeadLetters(self._redis, seals, 1).list(count=100_000)
        return [poison.Letter(letter.starts, letter.reason) for letter in found]


async def poisoned(house: House, lengths: Lengths) -> poison.Row:
    """Requests beside poison."""
    redis = Client(Address.parse(house.valkey_url), SystemClock(), SystemRandom(), name="poisoner")
    await redis.connect()
    try:
        poisoner = Poisoner(house, redis)
        return await poison.run(short_requests(house), poisoner.inject, poisoner.letters, lengths)
    finally:
        await redis.close()


def short_requests(house: House) -> Plan:
    """Unary requests of one token."""
    host, port, request = chat_request(
        f"{house.base_url}/v1", "mock", house.key, [], stream=False, usage=False, tokens=1, prompt_chars=100
    )
    return Plan(host, port, repeat(request), False, 1)


def say(line: str) -> None:
    """Progress, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def play_rolling(folder: Path) -> list[str]:
    rows = roll(folder)
    print(rolling.table(rolling.HEAD, [row.cells() for row in rows]))
    return [f"{row.kind}: {words}" for row in rows for words in row.broken()]


def play_poison(folder: Path) -> list[str]:
    with scripted_engine() as engine, headrace(folder, "--no-model", engines={"mock": engine.url}) as house:
        row = asyncio.run(poisoned(house, poison.FULL))
    print(rolling.table(poison.HEAD, [row.cells()]))
    reasons = Counter(letter.reason for letter in row.letters)
    print("\n".join(f"    {count} x {reason}" for reason, count in reasons.items()))
    return row.broken()


def play_hostile(folder: Path) -> list[str]:
    with scripted_engine() as engine, headrace(folder, "--no-model", engines={"mock": engine.url}) as house:
        plan = short_requests(house)
        to = hostile.Target(plan.host, plan.port, house.key, "mock")
        row = asyncio.run(hostile.run(to, plan, hostile.FULL))
        traces = house.logs().count("Traceback")
    print(rolling.table(hostile.HEAD, [row.cells()]))
    return [*row.broken(), *([f"{traces} tracebacks in the logs"] if traces else [])]


def play_outage(folder: Path) -> list[str]:
    """The supervisor, which would start Redis again at once, is held meanwhile."""
    with scripted_engine() as engine, headrace(folder, "--no-model", engines={"mock": engine.url}) as house:
        plan, pid = short_requests(house), house.pid("valkey")
        place = outage.Place(plan.host, plan.port, house.key, "mock", urlsplit(house.valkey_url).port or 0)

        def take() -> None:
            house.process.send_signal(signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)

        rows = [asyncio.run(outage.run(place, take, lambda: house.process.send_signal(signal.SIGCONT), 5.0))]
    print(rolling.table(outage.HEAD, [row.cells() for row in rows]))
    return [words for row in rows for words in row.broken()]


def play_trust(folder: Path) -> list[str]:
    rows = trust.rows()
    print(rolling.table(trust.HEAD, [row.cells() for row in rows]))
    return [words for row in rows for words in row.broken()]


PLAYS: Mapping[str, Callable[[Path], list[str]]] = {
    "rolling": play_rolling,
    "poison": play_poison,
    "hostile": play_hostile,
    "outage": play_outage,
    "trust": play_trust,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/promises", description="Play what is promised and see what happens.")
    parser.add_argument("plays", nargs="*", metavar="PLAY", help=f"of {', '.join(PLAYS)}; all by default")
    asked = parser.parse_args()
    if unknown := set(asked.plays) - set(PLAYS):
        parser.error(f"no such play: {', '.join(sorted(unknown))}")
    broken = []
    for name in asked.plays or PLAYS:
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="headrace-promises-") as folder:
            broken += [f"{name}: {words}" for words in PLAYS[name](Path(folder))]
    print("\n" + ("\n".join(f"Not as promised: {words}" for words in broken) or "Every promise held."))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
