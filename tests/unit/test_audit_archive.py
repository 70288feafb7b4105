"""Group `archive` over the twins: what it keeps, what it leaves, and that nothing is acknowledged before it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
import pytest
from msgspec import structs
from msgspec.structs import replace

from base.clock import SystemClock
from schemas.errors import Unavailable
from schemas.frames import DATA, END, StoredFrame, unpack
from schemas.outcomes import Dead, Delivery, Done
from schemas.records import ArchiveRecord
from storage.memory import MemoryArchive, MemoryRequests
from tests.audit_support import CANARY, PUBLISHERS, STRANGER, TIMES, VERIFIER, End, accepted, run_id, verdicts
from workers.audit.archive import Archive
from workers.audit.opening import AUTHORIZATION

LAST = StoredFrame(epoch=1, sequence=2, kind=END, events=2, payload=b"sealed", headers=b"")


@dataclass
class Shelf:
    """Implements workers.audit.ports.Held."""

    found: list[StoredFrame] = field(default_factory=lambda: [LAST])
    gone: list[str] = field(default_factory=list)
    asked: bytes = b'{"messages": [{"content": "ann@example.com"}], "model": "m", "n": 1}'
    deleted: bool = False

    async def frames(self, run: str) -> Sequence[StoredFrame]:
        return self.found

    async def body(self, run: str, rewrite: Callable[[bytes], bytes] | None = None) -> bytes:
        return rewrite(self.asked) if rewrite else self.asked

    async def let_go(self, run: str) -> bool:
        if not self.deleted:
            self.gone.append(run)
        return not self.deleted


class Away(MemoryArchive):
    """PostgreSQL does not answer."""

    async def keep(self, records: Sequence[ArchiveRecord], now_ms: int) -> frozenset[str]:
        raise Unavailable("PostgreSQL is away")


def delivery(number: int = 1, keep: bool = True, wish: dict[str, Any] | None = None, **end: object) -> Delivery:
    """The end of a run that came with an Idempotency-Key."""
    run = run_id(number)
    said = replace(accepted(run), keep_ms=10**13, once=f"name {number}", asked="asked", **(wish or {}))
    ended = End(run=run, accepted=said, **end)  # type: ignore[arg-type]
    return ended.delivery(ended.fields() | ({b"keep": b"1"} if keep else {}))


def room(shelf: Shelf, kept: MemoryArchive) -> Archive:
    return Archive(VERIFIER, PUBLISHERS, shelf, kept, SystemClock())


async def test_the_frames_are_kept_as_they_lie_and_let_go_afterwards() -> None:
    shelf, kept = Shelf(), MemoryArchive(MemoryRequests())
    assert list(await room(shelf, kept).handle([delivery()])) == [Done()]
    found = await kept.find_once("acme", ["name 1"], TIMES.ended)
    assert found is not None and unpack(found.frames) == (LAST,)
    assert (found.run, found.asked, found.ended_ms) == (run_id(1), "asked", TIMES.ended)
    assert shelf.gone == [run_id(1)]


async def test_the_same_end_again_keeps_nothing_twice_and_changes_nothing() -> None:
    shelf, kept = Shelf(), MemoryArchive(MemoryRequests())
    await room(shelf, kept).handle([delivery()])
    shelf.found = [structs.replace(LAST, payload=b"other")]
    assert list(await room(shelf, kept).handle([delivery(), delivery()])) == [Done(), Done()]
    found = await kept.find("acme", run_id(1), TIMES.ended)
    assert found is not None and unpack(found.frames) == (LAST,)


async def test_what_was_asked_is_kept_where_the_acceptance_says_so() -> None:
    for number, wanted in ((1, True), (2, False)):
        kept = MemoryArchive(MemoryRequests())
        await room(Shelf(), kept).handle([delivery(number, wish={"keep_body": wanted, "background": wanted})])
        found = await kept.find("acme", run_id(number), TIMES.ended)
        assert found is not None and found.route == accepted(run_id(number)).route
        assert (bool(found.body), found.background) == (wanted, wanted)
        assert found.accepted_ms == TIMES.accepted


async def test_of_a_request_only_what_the_guards_let_through_is_kept() -> None:
    async def kept_of(**end: Any) -> Any:
        kept = MemoryArchive(MemoryRequests())
        await room(Shelf(), kept).handle([delivery(wish={"keep_body": True}, **end)])
        found = await kept.find("acme", run_id(1), TIMES.ended)
        assert found is not None
        return orjson.loads(found.body) if found.body else None

    bare = {"model": "m", "n": 1}
    assert (await kept_of())["messages"][0]["content"] == CANARY + "@example.com"
    checking = msgspec.json.encode(structs.replace(TIMES, cleared=0))
    assert await kept_of(times=checking) == bare  # refused, or ended before all had answered
    said = verdicts(run_id(1))
    passed = {**said, "rules": replace(said["rules"], edits=())}
    assert (await kept_of(verdicts=passed))["messages"][0]["content"] == "ann@example.com"
    assert await kept_of(rings={"rules": STRANGER}) == bare
    astray = replace(said["rules"].edits[0], pointer="/nowhere")
    assert await kept_of(verdicts={**said, "rules": replace(said["rules"], edits=(astray,))}) is None


@pytest.mark.parametrize("frames", [[LAST], []])
async def test_an_answer_that_was_deleted_meanwhile_is_not_left_behind(frames: list[StoredFrame]) -> None:
    shelf, kept = Shelf(), MemoryArchive(MemoryRequests())
    await room(shelf, kept).handle([delivery()])
    shelf.found, shelf.deleted = frames, True
    await room(shelf, kept).handle([delivery()])
    assert await kept.find("acme", run_id(1), TIMES.ended) is None


async def test_an_end_that_is_not_to_be_kept_is_not_even_looked_at() -> None:
    shelf, kept = Shelf(), MemoryArchive(MemoryRequests())
    assert list(await room(shelf, kept).handle([delivery(keep=False)])) == [Done()]
    assert shelf.gone == []


async def test_without_the_record_nothing_is_let_go() -> None:
    shelf = Shelf()
    with pytest.raises(Unavailable):
        await room(shelf, Away(MemoryRequests())).handle([delivery()])
    assert shelf.gone == []


@pytest.mark.parametrize("frames", [[], [structs.replace(LAST, kind=DATA)]])
async def test_half_an_answer_is_not_kept(frames: list[StoredFrame]) -> None:
    shelf, kept = Shelf(found=frames), MemoryArchive(MemoryRequests())
    assert list(await room(shelf, kept).handle([delivery()])) == [Done()]
    assert await kept.find("acme", run_id(1), TIMES.ended) is None


async def test_what_belongs_to_nobody_that_is_known_is_let_go_and_not_kept() -> None:
    shelf, kept = Shelf(), MemoryArchive(MemoryRequests())
    stranger = {AUTHORIZATION: replace(verdicts(run_id(1))[AUTHORIZATION], grant=None)}
    assert list(await room(shelf, kept).handle([delivery(verdicts=stranger)])) == [Done()]
    assert await kept.find("acme", run_id(1), TIMES.ended) is None and shelf.gone == [run_id(1)]


async def test_a_forged_end_dies_and_a_forged_acceptance_keeps_nothing() -> None:
    shelf, kept = Shelf(), MemoryArchive(MemoryRequests())
    ends = [delivery(1, rings={"router": STRANGER}), delivery(2, rings={"ingress": STRANGER}), delivery(3)]
    assert [type(item) for item in await room(shelf, kept).handle(ends)] == [Dead, Done, Done]
    assert shelf.gone == [run_id(3)]
