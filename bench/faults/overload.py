"""Overload, seen from outside: more is asked than an engine can answer, and what becomes of each request.

An engine with few slots has a capacity that is known; it is measured with as many clients as keep it busy. Then
requests leave by the clock at one, two and three times that rate, whether or not others were answered. Each must have
a whole answer within its deadline, or a refusal with a code and a time to come back, at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat

from bench import rolling
from bench.client import Plan
from bench.load import Load, Pace, chat_request
from bench.stats import percentile
from bench.tally import Refused, Tally

MODEL = "narrow"
#: Codes and statuses with which a door may refuse for want of room.
ROOM, STATUSES = frozenset({"overloaded", "rate_limit_exceeded"}), frozenset({429, 503})
EXPIRED = "deadline_exceeded"
#: Promised: milliseconds of a refusal, p99, and the share of the peak that is still answered.
REFUSAL_MS, GOODPUT = 50.0, 0.9


@dataclass(frozen=True, slots=True)
class Size:
    """slots, service_ms: of the engine. deadline_s: what each client gives. Seconds of the search for the capacity and
    of each level; levels: times the capacity; clients: who come back at
    once, herd_itl_ms: between their tokens; gate_s: seconds of each play of tenants;
    rolling: of the restarts."""

    slots: int
    service_ms: int
    deadline_s: float
    find_s: float
    level_s: float
    levels: tuple[float, ...]
    clients: int
    herd_itl_ms: float
    gate_s: float
    rolling: rolling.Size


FULL = Size(64, 400, 10.0, 6.0, 20.0, (1.0, 2.0, 3.0), 1_000, 500.0, 12.0, rolling.FULL)
QUICK = Size(4, 50, 4.0, 1.5, 6.0, (3.0,), 60, 200.0, 2.0, rolling.QUICK)

HEAD = (
    *("load", "offered/s", "answered/s", "of peak", "refused", "refusal p50 ms", "p99 ms", "come back after s"),
    *("expired", "late", "answer p50 s", "p99 s", "else"),
)


@dataclass(slots=True)
class Row:
    """One level. answered: whole answers in the window; late: whole ones after their deadline. others: how requests
    ended that were neither answered nor refused nor expired."""

    times: float
    deadline_s: float
    peak: float
    seconds: float
    sent: int = 0
    unsent: int = 0
    answered: int = 0
    good: int = 0
    stays_s: list[float] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def turned_away(self) -> list[Refused]:
        return [one for one in self.refused if one.code != EXPIRED]

    @property
    def expired(self) -> int:
        return len(self.refused) - len(self.turned_away)

    @property
    def late(self) -> int:
        return sum(stay > self.deadline_s for stay in self.stays_s)

    @property
    def share(self) -> float:
        return self.answered / self.seconds / self.peak if self.peak else 0.0

    def broken(self) -> list[str]:
        """What no load excuses."""
        found = []
        strange = Counter(f"{one.status} {one.code or 'without a code'}" for one in self.turned_away if not _fair(one))
        if strange:
            found.append(f"refusals that are none, or say no time to come back: {dict(strange)}")
        if self.others:
            found.append(f"requests that ended without an answer or a code: {dict(self.others)}")
        if self.sent != self.good + len(self.refused) + sum(self.others.values()):
            found.append(f"of {self.sent} requests {self.good + len(self.refused)} came to an end")
        return found

    def missed(self) -> list[str]:
        """Promised figures that were not met; they depend on the machine."""
        found = []
        if self.expired or self.late:
            found.append(
                f"{self.expired + self.late} of {self.good + self.expired} admitted runs missed their deadline"
            )
        if self.turned_away and _ms(self.turned_away, 0.99) > REFUSAL_MS:
            found.append(f"refusals took {_ms(self.turned_away, 0.99):.0f} ms in p99, promised are {REFUSAL_MS:.0f}")
        if self.times > 1 and self.share < GOODPUT:
            found.append(f"{self.share:.0%} of the peak was answered, promised are {GOODPUT:.0%}")
        return found

    def cells(self) -> tuple[str, ...]:
        """Under HEAD."""
        away, stays = self.turned_away, sorted(self.stays_s)
        waits = sorted(one.retry_ms / 1000 for one in away)
        codes = ", ".join(f"{count} x {status} {code}" for (status, code), count in _kinds(away).items())
        return (
            f"{self.times:g}x", f"{self.sent / self.seconds:.0f}", f"{self.answered / self.seconds:.0f}",
            f"{self.share:.0%}", codes or "-", *(f"{_ms(away, share):.1f}" if away else "-" for share in (0.5, 0.99)),
            f"{waits[0]:.1f}..{waits[-1]:.1f}" if waits else "-", str(self.expired), str(self.late),
            *(f"{percentile(stays, share):.2f}" if stays else "-" for share in (0.5, 0.99)),
            ", ".join(f"{count} x {kind}" for kind, count in self.others.items()) or "-",
        )  # fmt: skip


def _fair(one: Refused) -> bool:
    return one.code in ROOM and one.status in STATUSES and one.retry_ms > 0


def _kinds(refused: Sequence[Refused]) -> Counter[tuple[int, str]]:
    return Counter((one.status, one.code) for one in refused)


def _ms(refused: Sequence[Refused], share: float) -> float:
    return percentile(sorted(one.latency_ns / 1e6 for one in refused), share)


def plan(url: str, key: str, deadline_s: float) -> Plan:
    """What each client asks; it gives up its answer after deadline_s."""
    patience = [f"x-stainless-read-timeout: {deadline_s:g}"]
    host, port, request = chat_request(url, MODEL, key, patience, stream=False, usage=False, tokens=1, prompt_chars=100)
    return Plan(host, port, repeat(request), False)


async def capacity(asked: Plan, size: Size) -> float:
    """Answers a second while every slot is busy."""
    load = Load(asked, Pace(4 * size.slots, 0, 0, 0, size.find_s, 30.0, 0))
    drive = asyncio.create_task(load.closed())
    await asyncio.sleep(size.find_s / 3)
    load.tally.begin()
    await asyncio.sleep(size.find_s)
    load.tally.end()
    load.stop()
    await drive
    await load.drain()
    return float(load.tally.report()["requests_per_s"])


async def level(asked: Plan, size: Size, peak: float, times: float) -> Row:
    """So many times the capacity for a while, and how everything ended."""
    load = Load(asked, Pace(0, peak * times, 0, 0, size.level_s, size.deadline_s + 15.0, 15_000))
    load.tally.begin()
    drive = asyncio.create_task(load.open())
    await _expiring(load, size.level_s)
    answered = load.tally.completed
    load.stop()
    await drive
    await load.drain()
    load.tally.end()
    return _row(load.tally, Row(times, size.deadline_s, peak, size.level_s, answered=answered))


def _row(tally: Tally, row: Row) -> Row:
    row.sent, row.unsent, row.good = tally.sent, tally.unsent, tally.good
    row.stays_s = [latency / 1e9 for latency in tally.latency]
    row.refused = tally.refused
    row.others = Counter({kind: count for kind, count in tally.errors.items() if not kind.isdigit()})
    return row


async def _expiring(load: Load, seconds: float) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.1)
        load.expire()
