"""The two groups over the twins: what they answer, and what they leave behind."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from base.clock import SystemClock
from policy.prices import Price
from schemas.errors import Unavailable
from schemas.outcomes import Dead, Done
from schemas.ports import Reservation, Scope
from schemas.records import FactRecord, KeyRecord, RequestRecord
from state.memory import MemoryKeys, MemoryLimits
from storage.access import OPERATOR
from storage.memory import MemoryRequests
from storage.ports import RequestFilter
from tests.audit_support import PUBLISHERS, STRANGER, VERIFIER, End, blocked, run_id
from tests.state_support import FakeClock
from workers.audit.handlers import Audit, Ledger
from workers.audit.ports import Record
from workers.audit.settings import AuditSettings, PriceSettings


class Away:
    """A record that does not answer."""

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        raise Unavailable("PostgreSQL is away")


def audit(record: Record) -> Audit:
    return Audit(VERIFIER, PUBLISHERS, record, (Price(model="*", prompt=1, completion=1),), SystemClock())


async def test_a_batch_is_written_and_done() -> None:
    record = MemoryRequests()
    ends = [End(run=run_id(number)).delivery() for number in range(3)]
    assert list(await audit(record).handle(ends)) == [Done()] * 3
    assert len((await record.page(OPERATOR, RequestFilter())).rows) == 3


async def test_a_false_fact_dies_and_its_neighbours_live() -> None:
    record = MemoryRequests()
    false = End(run=run_id(2), rings={"router": STRANGER}).delivery()
    outcomes = await audit(record).handle([End(run=run_id(1)).delivery(), false, End(run=run_id(3)).delivery()])
    assert [type(outcome) for outcome in outcomes] == [Done, Dead, Done]
    assert await record.find(OPERATOR, run_id(2)) is None
    assert await record.find(OPERATOR, run_id(3)) is not None


async def test_one_row_per_run_whichever_order_and_however_often_facts_arrive() -> None:
    chance = random.Random(7)
    ends = [End(run=run_id(number % 5), attempt=number % 2).delivery() for number in range(10)]
    for _ in range(20):
        record = MemoryRequests()
        room = audit(record)
        arrivals = ends + chance.choices(ends, k=20)
        chance.shuffle(arrivals)
        for start in range(0, len(arrivals), 4):
            await room.handle(arrivals[start : start + 4])
        assert len((await record.page(OPERATOR, RequestFilter())).rows) == 5


async def test_a_record_that_is_away_is_nobodys_fault() -> None:
    with pytest.raises(Unavailable):
        await audit(Away()).handle([End().delivery()])


async def test_a_batch_of_false_facts_asks_no_record() -> None:
    outcomes = await audit(Away()).handle([End(rings={"router": STRANGER}).delivery()])
    assert isinstance(outcomes[0], Dead)


async def test_the_ledger_frees_the_concurrency_of_an_ended_run() -> None:
    limits = MemoryLimits(FakeClock())
    scope = Scope(name="key:00000000000000aa", concurrency=1)

    async def granted(number: int) -> bool:
        wanted = Reservation(run=run_id(number), tenant="acme", scopes=(scope,), ttl_ms=60_000)
        return (await limits.reserve([wanted]))[0].granted

    assert await granted(1) and not await granted(2)
    ledger = Ledger(VERIFIER, PUBLISHERS, MemoryKeys(), limits)
    ends = [End(fact=blocked(run_id()), by="rules").delivery(), End(rings={"router": STRANGER}).delivery()]
    outcomes = await ledger.handle(ends)
    assert [type(outcome) for outcome in outcomes] == [Done, Dead]
    assert await granted(3)


async def test_settling_twice_is_settling_once() -> None:
    ledger = Ledger(VERIFIER, PUBLISHERS, MemoryKeys(), MemoryLimits(FakeClock()))
    assert list(await ledger.handle([End().delivery(), End().delivery()])) == [Done(), Done()]


class NoKeys(MemoryKeys):
    """Keys that nobody can read just now."""

    async def find(self, key_id: str) -> KeyRecord | None:
        raise Unavailable("no store answers")


async def test_a_key_that_cannot_be_read_holds_up_nobodys_settlement() -> None:
    ledger = Ledger(VERIFIER, PUBLISHERS, NoKeys(), MemoryLimits(FakeClock()))
    early = End()
    fields = {name: value for name, value in early.fields().items() if not name.startswith(b"v:")}
    assert list(await ledger.handle([early.delivery(fields), End().delivery()])) == [Done(), Done()]


def test_prices_come_from_the_settings() -> None:
    settings = AuditSettings(prices=(PriceSettings(model="small", prompt=150_000, completion=600_000),))
    assert settings.price_list() == (Price(model="small", prompt=150_000, completion=600_000, cached=None),)
