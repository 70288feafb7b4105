"""The servers under everything: Valkey killed, Valkey frozen while streams are open, PostgreSQL frozen."""

from __future__ import annotations

import asyncio

from bench.faults.cases import NONE, Case
from bench.faults.field import Field
from bench.faults.load import chat
from bench.faults.waiting import until

#: What a client may be told while Valkey is away or was away.
_AWAY = frozenset({"store_unavailable", "upstream_interrupted", "deadline_exceeded"})
#: Milliseconds between tokens of streams that must outlast the outage; tokens of one.
_ITL_MS, _TOKENS = 200, 25
_SLOW = 0.15  # share of the usual rate while an outage lasts for minutes


def quick() -> list[Case]:
    """Seconds of outage."""
    return [
        Case("valkey.killed", "servers", _valkey_killed, _AWAY),
        Case("valkey.frozen", "servers", _valkey_frozen, _AWAY, most=400),
        Case("postgres.frozen", "servers", _postgres_frozen, NONE),
    ]


def full() -> list[Case]:
    """30 seconds of Valkey with 200 streams open, five minutes of PostgreSQL."""
    return [
        Case("valkey.killed", "servers", _valkey_killed, _AWAY),
        Case("valkey.frozen", "servers", _valkey_frozen, _AWAY, most=600),
        Case("postgres.frozen", "servers", _postgres_frozen, NONE, share=_SLOW),
    ]


async def _valkey_killed(field: Field) -> None:
    """Three times in the full form; the supervisor starts it again from its append-only file."""
    for _ in range(3 if field.long else 1):
        await field.load.goes_on()
        await (await field.kill("valkey"))


async def _valkey_frozen(field: Field) -> None:
    """Every stream that is open when the outage begins must end whole: no owner is robbed, no run is given up."""
    number, seconds = 200 if field.long else 30, field.outage(30.0, 4.0)
    await asyncio.to_thread(field.ground.engine.set, itl_ms=_ITL_MS)
    tokens = _TOKENS + round(seconds * 1000 / _ITL_MS)
    opened = [field.load.begin(True, chat("mock", lambda number: tokens)) for _ in range(number)]
    await until(lambda: all(said.tokens for said in opened), "the first token of every stream")
    await asyncio.to_thread(field.ground.engine.set, itl_ms=10)
    async with field.stopped("valkey"):
        await asyncio.sleep(seconds)
    await until(lambda: all(said.ended_at for said in opened), "the end of every stream", 120)
    if broken := [said for said in opened if not said.whole or said.tokens != tokens]:
        codes = sorted({said.code or "cut" for said in broken})
        field.notes.append(f"{len(broken)} of {number} open streams did not outlast the outage: {', '.join(codes)}")


async def _postgres_frozen(field: Field) -> None:
    await field.load.goes_on()
    async with field.stopped("postgres"):
        await asyncio.sleep(field.outage(300.0, 5.0))
