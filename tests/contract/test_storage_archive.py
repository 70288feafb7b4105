"""Promises of storage.ports.Archive: the twin and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.errors import DecodeError
from schemas.frames import StoredFrame, pack, unpack
from schemas.records import ArchiveRecord
from storage.ports import Archive, Store
from tests.storage_support import fact, request

FRAMES = (StoredFrame(epoch=1, sequence=3, kind="end", events=3, payload=b"\x01\x02", headers=b"{}"),)
KEPT = ArchiveRecord(
    run=request(1).run,
    tenant="acme",
    key_id="k1",
    once="name",
    asked="asked",
    stream=True,
    frames=pack(FRAMES),
    ended_ms=1_000,
    expires_ms=2_000,
)


@pytest.fixture
def archive(store: Store) -> Archive:
    return store.archive


async def test_an_answer_is_found_as_it_was_kept_by_run_and_by_key(archive: Archive) -> None:
    assert await archive.keep([KEPT], 1_000) == {KEPT.run}
    assert await archive.find("acme", KEPT.run, 1_500) == KEPT
    assert await archive.find_once("acme", ["other", "name"], 1_500) == KEPT
    assert unpack(KEPT.frames) == FRAMES


async def test_what_was_asked_is_kept_beside_the_answer(archive: Archive) -> None:
    kept = replace(KEPT, route="/v1/responses", background=True, accepted_ms=7, body=b"\x00sealed")
    await archive.keep([kept], 1_000)
    assert await archive.find("acme", KEPT.run, 1_500) == kept


async def test_only_its_tenant_can_have_it_deleted(archive: Archive) -> None:
    await archive.keep([KEPT], 1_000)
    assert await archive.forget("rival", KEPT.run) is False
    assert await archive.find("acme", KEPT.run, 1_500) == KEPT
    assert [await archive.forget("acme", KEPT.run) for _ in range(2)] == [True, False]
    assert await archive.find("acme", KEPT.run, 1_500) is None


async def test_no_other_tenant_finds_it(archive: Archive) -> None:
    await archive.keep([KEPT], 1_000)
    assert await archive.find("rival", KEPT.run, 1_500) is None
    assert await archive.find_once("rival", ["name"], 1_500) is None


async def test_the_first_answer_under_a_key_counts(archive: Archive) -> None:
    other = replace(KEPT, run=request(2).run)
    assert await archive.keep([KEPT, other], 1_000) == {KEPT.run}
    assert await archive.keep([KEPT], 1_000) == set()
    assert await archive.find_once("acme", ["name"], 1_500) == KEPT


async def test_answers_without_a_key_do_not_meet(archive: Archive) -> None:
    one, two = replace(KEPT, once=""), replace(KEPT, once="", run=request(2).run)
    assert await archive.keep([one, two], 1_000) == {one.run, two.run}
    assert await archive.find_once("acme", [""], 1_500) is None


async def test_what_has_expired_is_not_found_makes_room_and_is_swept(archive: Archive) -> None:
    await archive.keep([KEPT], 1_000)
    assert await archive.find("acme", KEPT.run, 2_000) is None
    assert await archive.find_once("acme", ["name"], 2_000) is None
    later = replace(KEPT, run=request(2).run, ended_ms=3_000, expires_ms=4_000)
    assert await archive.keep([later], 3_000) == {later.run}
    assert await archive.find_once("acme", ["name"], 3_500) == later
    assert (await archive.sweep(3_500), await archive.sweep(4_000), await archive.sweep(4_000)) == (0, 1, 0)


async def test_spent_is_what_ended_without_an_answer_to_keep(store: Store) -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    rows = [
        request(1),
        request(2, outcome="refused", **nothing),
        request(3, outcome="failed", **nothing),
        request(4, outcome="failed"),
        request(5, outcome="cancelled"),
    ]
    await store.requests.write([fact(row) for row in rows], rows)
    asked = [row.run for row in rows] + [request(6).run]
    assert await store.archive.spent(asked) == {request(number).run for number in (2, 3, 5)}


def test_what_is_no_archive_is_said_to_be_none() -> None:
    with pytest.raises(DecodeError):
        unpack(b"\xc1")
