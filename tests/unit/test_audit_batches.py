"""Gathering rows into transactions: everybody hears of its own rows, the guilty alone hear of their guilt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from base.clock import SystemClock
from schemas.errors import Unavailable
from schemas.records import FactRecord, RequestRecord
from storage.errors import StoreRefused
from storage.memory import MemoryRequests
from tests.storage_support import fact, request
from workers.audit.batches import Batches


class Counting:
    """A record that counts its transactions, refuses rows of the model `poison`, and can be away."""

    def __init__(self) -> None:
        self.inner, self.transactions, self.away = MemoryRequests(), 0, False

    async def write(self, facts: Sequence[FactRecord], requests: Sequence[RequestRecord]) -> frozenset[str]:
        self.transactions += 1
        if self.away:
            raise Unavailable("PostgreSQL is away")
        if any(row.model == "poison" for row in requests):
            raise StoreRefused("no")
        return await self.inner.write(facts, requests)


@pytest.fixture
def record() -> Counting:
    return Counting()


@pytest.fixture
def batches(record: Counting) -> Batches:
    return Batches(record, SystemClock(), 0.005)


async def _write(batches: Batches, row: RequestRecord) -> frozenset[str]:
    return await batches.write([fact(row)], [row])


async def test_rows_of_many_hands_go_into_one_transaction(record: Counting, batches: Batches) -> None:
    rows = [request(number) for number in range(50)]
    answers = await asyncio.gather(*(_write(batches, row) for row in rows))
    assert answers == [{row.run} for row in rows]
    assert record.transactions == 1


async def test_a_row_that_was_there_is_not_new(batches: Batches) -> None:
    await _write(batches, request(1))
    answers = await asyncio.gather(_write(batches, request(1)), _write(batches, request(2)))
    assert list(answers) == [set(), {request(2).run}]


async def test_a_refused_row_hurts_nobody_but_its_own_hand(batches: Batches) -> None:
    rows = [request(1), request(2, model="poison"), request(3)]
    answers = await asyncio.gather(*(_write(batches, row) for row in rows), return_exceptions=True)
    assert answers[0] == frozenset({rows[0].run}) and answers[2] == frozenset({rows[2].run})
    assert isinstance(answers[1], StoreRefused)


async def test_an_outage_is_told_to_all_and_later_rows_are_written(record: Counting, batches: Batches) -> None:
    record.away = True
    answers = await asyncio.gather(*(_write(batches, request(n)) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    record.away = False
    assert await _write(batches, request(1)) == {request(1).run}


async def test_a_hand_that_gave_up_does_not_stop_the_others(batches: Batches) -> None:
    gone = asyncio.create_task(_write(batches, request(1)))
    stays = asyncio.create_task(_write(batches, request(2)))
    await SystemClock().sleep(0)
    gone.cancel()
    assert await stays == {request(2).run}
