"""Promises of storage.ports.Requests: the twin and PostgreSQL."""

from __future__ import annotations

from itertools import permutations

import pytest
from msgspec.structs import replace

from schemas.records import RequestRecord
from storage.access import OPERATOR, tenant
from storage.ports import Place, RequestFilter, Requests, Store, UsageSum
from tests.storage_support import REQUEST, fact, request

ALL = RequestFilter()


@pytest.fixture
def requests(store: Store) -> Requests:
    return store.requests


async def _fill(requests: Requests, rows: list[RequestRecord]) -> None:
    await requests.write([fact(row) for row in rows], rows)


async def test_a_row_is_found_as_it_was_written(requests: Requests) -> None:
    await _fill(requests, [REQUEST])
    assert await requests.find(OPERATOR, REQUEST.run) == REQUEST
    assert list(await requests.facts(OPERATOR, REQUEST.run)) == [fact(REQUEST)]


async def test_an_unknown_run_is_none(requests: Requests) -> None:
    assert await requests.find(OPERATOR, REQUEST.run) is None


async def test_writing_twice_gives_one_row_and_the_first_counts(requests: Requests) -> None:
    assert await requests.write([fact(REQUEST)], [REQUEST]) == {REQUEST.run}
    assert await requests.write([fact(REQUEST)], [replace(REQUEST, cost_micros=999)]) == set()
    assert await requests.find(OPERATOR, REQUEST.run) == REQUEST
    assert len(await requests.facts(OPERATOR, REQUEST.run)) == 1


async def test_one_run_twice_in_a_batch_gives_one_row(requests: Requests) -> None:
    assert await requests.write([fact(REQUEST), fact(REQUEST)], [REQUEST, REQUEST]) == {REQUEST.run}


async def test_one_row_per_run_whichever_order_facts_arrive_in(requests: Requests) -> None:
    kinds = [("RequestCompleted", 1), ("RequestFailed", 2), ("RequestFailed", 1)]
    for number, order in enumerate(permutations(kinds)):
        row = request(number)
        for kind, attempt in order:
            await requests.write([fact(row, kind, attempt)], [row])
        assert len(await requests.facts(OPERATOR, row.run)) == 3
    assert len((await requests.page(OPERATOR, ALL)).rows) == 6


async def test_an_empty_batch_writes_nothing(requests: Requests) -> None:
    assert await requests.write([], []) == set()


async def test_two_tenants_cannot_see_each_other(requests: Requests) -> None:
    mine, theirs, nobodys = request(1), request(2, tenant="zeta"), request(3, tenant="")
    await _fill(requests, [mine, theirs, nobodys])
    me = tenant("acme")
    assert await requests.find(me, theirs.run) is None
    assert await requests.find(me, nobodys.run) is None
    assert list(await requests.facts(me, theirs.run)) == []
    assert list((await requests.page(me, ALL)).rows) == [mine]
    assert list((await requests.page(me, RequestFilter(tenant="zeta"))).rows) == []
    assert [item.name for item in await requests.usage(me, "tenant", 0, 10_000)] == ["acme"]


async def test_pages_are_newest_first_and_meet_without_gap_or_overlap(requests: Requests) -> None:
    rows = [request(number, ended_ms=1_000 + number // 3) for number in range(20)]
    await _fill(requests, rows)
    seen: list[RequestRecord] = []
    after: Place | None = None
    while True:
        page = await requests.page(OPERATOR, ALL, after=after, limit=7)
        seen.extend(page.rows)
        after = page.next
        if after is None:
            break
    assert seen == sorted(rows, key=lambda row: (row.ended_ms, row.run), reverse=True)


async def test_a_page_that_fits_exactly_is_the_last(requests: Requests) -> None:
    await _fill(requests, [request(1), request(2)])
    assert (await requests.page(OPERATOR, ALL, limit=2)).next is None


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (RequestFilter(tenant="zeta"), [2]),
        (RequestFilter(key_id="k2"), [3]),
        (RequestFilter(model="large"), [4]),
        (RequestFilter(outcome="failed"), [5]),
        (RequestFilter(status=502), [5]),
        (RequestFilter(since_ms=1_004), [5, 4]),
        (RequestFilter(until_ms=1_002), [1]),
        (RequestFilter(tenant="acme", since_ms=1_002, until_ms=1_005), [4, 3]),
        (RequestFilter(model="' OR 1=1 --"), []),
    ],
)
async def test_filters_narrow_the_list(requests: Requests, wanted: RequestFilter, numbers: list[int]) -> None:
    rows = {
        1: request(1),
        2: request(2, tenant="zeta"),
        3: request(3, key_id="k2"),
        4: request(4, model="large"),
        5: request(5, outcome="failed", status=502),
    }
    await _fill(requests, list(rows.values()))
    page = await requests.page(OPERATOR, wanted)
    assert list(page.rows) == [rows[number] for number in numbers]


async def test_usage_is_summed_exactly_dearest_first(requests: Requests) -> None:
    big = 2**53 + 1
    rows = [request(1, cost_micros=big), request(2, cost_micros=1), request(3, model="large"), request(90)]
    await _fill(requests, rows)
    assert list(await requests.usage(OPERATOR, "model", 1_001, 1_090)) == [
        UsageSum(
            name="small", requests=2, prompt_tokens=20, completion_tokens=40, cached_tokens=10, cost_micros=big + 1
        ),
        UsageSum(name="large", requests=1, prompt_tokens=10, completion_tokens=20, cached_tokens=5, cost_micros=7),
    ]
    assert [item.name for item in await requests.usage(OPERATOR, "key", 0, 9_999)] == [REQUEST.key_id]
