"""Evidence: the record in PostgreSQL, what an ingress still has of a run, the engines' ledgers, what is left over.

I4  every group has read and finished everything, and nothing lies among the dead letters
I6  nothing is in flight: no live run, no bytes of bodies, no reservation, no endpoint in use, no answer under way
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import asyncpg
from redis.exceptions import RedisError

from bench.faults import wire
from bench.faults.field import Ground
from bench.faults.invariants import Attempt, Evidence
from bench.faults.said import Said
from bench.peers import http_get
from runtime.names import prefix

#: Seconds for everything to come to rest after the last client was answered.
REST_S = 60.0
#: One in so many whole streams is read again at an ingress and compared, byte for byte.
_EVERY = 10
_READABLE_S = 240.0  # an ingress has a run for five minutes after its end; outages last as long
_AT_ONCE = 8
_ROWS = "SELECT * FROM requests WHERE client_request_id = ANY($1::text[])"
_FACTS = "SELECT run, tenant, detail->>'outcome' AS outcome FROM facts WHERE run = ANY($1::text[])"


@dataclass(frozen=True, slots=True)
class Sent:
    """One line of the ledger of bench/mock_engine.py."""

    text: str
    tokens: int
    state: str


async def at_rest(ground: Ground) -> list[str]:
    """Wait until nothing is left over; what still is when REST_S are over."""
    end = monotonic() + REST_S
    while left := await _left(ground):
        if monotonic() > end:
            return left
        await asyncio.sleep(0.1)
    return []


async def _left(ground: Ground) -> list[str]:
    try:
        status, lags = await asyncio.to_thread(ground.house.request, "/admin/v1/lag")
        found = [] if status == 200 else [f"the admin API answers {status}"]
        found += _busy(lags) if status == 200 else []
        found += await asyncio.to_thread(_dead, ground) if status == 200 and lags["dead"] else []
        found += await _held(ground)
        found += await asyncio.to_thread(_in_flight, ground)
    except (OSError, ValueError, KeyError, RedisError) as error:
        return [f"something does not answer yet: {error}"]
    return found


def _busy(lags: Mapping[str, Any]) -> list[str]:
    left = [
        f"I4: group {row['group']} on {row['stream']}: {row[what]} {what}"
        for row in lags["data"]
        for what in ("lag", "pending", "waiting")
        if row[what]
    ]
    return left + ([f"I6: {lags['live']} live"] if lags["live"] else [])


def _dead(ground: Ground) -> list[str]:
    """The dead letters, with what killed them."""
    letters = ground.house.request("/admin/v1/dlq")[1]["data"]
    return [f"I4: a dead letter of {one['group']}, {one['starts']} starts: {one['reason']}" for one in letters]


async def _held(ground: Ground) -> list[str]:
    """Reservations that nobody freed, bytes of bodies that nobody has."""
    async with ground.valkey() as client:
        size = int(await client.get(f"{prefix(0)}:bytes") or 0)
        left = [f"I6: {size} bytes of bodies"] if size else []
        async for key in client.scan_iter(match="{o:*}:held:*", count=1000):
            if number := await client.zcard(key):
                left.append(f"I6: {number} reservations in {key.decode()}")
    return left


def _in_flight(ground: Ground) -> list[str]:
    """The router's slots, and answers that an engine still gives."""
    text = http_get(f"http://127.0.0.1:{ground.house.connection['health_ports']['router']}/metrics")
    rows = re.findall(r'headrace_endpoint_inflight\{.*?endpoint="([^"]+)".*?\} (\S+)', text)
    left = [f"I6: {number} slots of {name} in use" for name, number in rows if float(number)]
    live = ground.engine.stats()["live"]
    return left + ([f"I6: the engine gives {live} answers"] if live else [])


async def gather(ground: Ground, said: Sequence[Said]) -> list[Evidence]:
    """Everything about these runs."""
    connection = await asyncpg.connect(ground.house.postgres_dsn)
    try:
        rows = await connection.fetch(_ROWS, [one.name for one in said])
        facts = await connection.fetch(_FACTS, [row["run"] for row in rows])
    finally:
        await connection.close()
    by_name, by_run = _grouped(rows, "client_request_id"), _grouped(facts, "run")
    ledger = await asyncio.to_thread(ground.engine.whole_ledger)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, run: Said) -> Evidence:
        found = by_name.get(run.name, [])
        mine = [fact for row in found for fact in by_run.get(row["run"], [])]
        async with slots:
            replayed = await _replayed(ground, number, run, found)
        sent: list[Attempt] = [Sent(line["text"], line["tokens"], line["state"]) for line in ledger.get(run.name, ())]
        return Evidence(run, [*sent, *ground.bad.ledger(run.name)], found, mine, replayed)

    return list(await asyncio.gather(*(one(number, run) for number, run in enumerate(said))))


def _grouped(rows: Iterable[Any], name: str) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found


async def _replayed(ground: Ground, number: int, said: Said, rows: Sequence[Mapping[str, Any]]) -> list[bytes] | None:
    """What an ingress still has of a run: of every broken one, and of some whole ones, if they did not end long ago."""
    if 0 < said.ended_at < monotonic() - _READABLE_S:
        return None
    run = said.run or (rows[0]["run"] if rows and said.cut else "")
    if not run or said.status not in (0, 200) or (said.whole and number % _EVERY):
        return None
    reply = await wire.replay(ground.house.base_url, ground.key, run, 0)
    return [data for _, data in reply.data] if reply.status == 200 and reply.ended else []
