"""Owning a run: claim, flush, end, cancel, watch. Whoever does not own it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from msgspec import structs

from runtime.names import MANY
from runtime.scripts import DeadLetter, Held, Write
from tests.run_support import FAMILIES, POOL, Hands, RedisWorld, World, answer, ending, frame, store_frame, until

# --- claim ----------------------------------------------------------------------------------------------------------


async def test_claim_hands_over_the_run_with_its_first_epoch(world: World, hands: Hands) -> None:
    entry = await hands.queue()
    claim = await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
    assert (claim.state, claim.epoch, claim.sequence, claim.body) == ("ok", 1, 0, b"b" * 100)
    assert 0 < claim.left_ms <= 60_000
    assert claim.fields["v:rules"] == b"verdict rules pass" and claim.fields["a"]
    assert (await hands.state(), await hands.field("owner"), await hands.field("first")) == ("running", "r1:a", "1")


async def test_claiming_twice_with_one_nonce_is_one_claim(world: World, hands: Hands) -> None:
    entry = await hands.own()
    await hands.flush(1)
    again = await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
    assert (again.state, again.epoch, again.sequence) == ("ok", 1, 1)
    assert await hands.field("first") == "1"


async def test_flush_leaves_how_many_events_carried_what_was_generated(world: World, hands: Hands) -> None:
    await hands.own()
    for last, said in ((3, 2), (4, 2)):
        stored = structs.replace(frame(f"f{last}", 3 if last == 3 else 1), said=said)
        assert await store_frame(world.scripts, hands.run, "r1:a", last, stored) == "ok"
    assert (await hands.field("seq"), await hands.field("said")) == ("4", "2")


async def test_take_over_raises_the_epoch_and_keeps_the_sequence(world: World, hands: Hands) -> None:
    entry = await hands.own()
    await hands.flush(2, events=2)
    await hands.take_over(entry)
    assert (await hands.field("epoch"), await hands.field("first"), await hands.field("seq")) == ("2", "3", "2")
    assert await hands.field("owner") == "r2:b"


async def test_claim_of_anothers_entry_is_lost_and_changes_nothing(world: World, hands: Hands) -> None:
    entry = await hands.queue("r1")
    before = await hands.snapshot()
    assert (await world.scripts.claim(hands.run, hands.lane, entry, "r2", "r2:b")).state == "lost"
    assert await hands.snapshot() == before


async def test_claim_of_an_ended_run_is_gone_and_acknowledged(world: World, hands: Hands) -> None:
    entry = await hands.queue()
    await hands.end("0-0", "queued", guard="state")
    await world.add(hands.lane, {"e": b"duplicate"})
    (stale,) = await hands.read(hands.lane, "router", "r1")
    for one in (entry, stale):
        assert (await world.scripts.claim(hands.run, hands.lane, one, "r1", "r1:a")).state == "gone"
    assert await world.pending(hands.lane, "router") == {} and await world.entries(hands.lane) == []


async def test_stale_duplicate_lane_entry_is_dropped_and_the_run_stays(world: World, hands: Hands) -> None:
    entry = await hands.own()
    await world.add(hands.lane, {"e": b"duplicate"})
    (stale,) = await hands.read(hands.lane, "router", "r2")
    assert (await world.scripts.claim(hands.run, hands.lane, stale, "r2", "r2:b")).state == "gone"
    assert (await hands.state(), await hands.field("owner")) == ("running", "r1:a")
    assert await world.pending(hands.lane, "router") == {entry: "r1"}


async def test_claim_of_a_run_still_in_checks_is_gone(world: World, hands: Hands) -> None:
    await hands.accept()
    entry = await world.add(hands.lane, {"e": b"forged"})
    await hands.read(hands.lane, "router", "r1")
    assert (await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")).state == "gone"
    assert await hands.state() == "checking"


# --- flush ----------------------------------------------------------------------------------------------------------


async def test_flushed_frames_lie_in_order_under_epoch_and_sequence(world: World, hands: Hands) -> None:
    await hands.own()
    assert [await hands.flush(1), await hands.flush(4, events=3)] == ["ok", "ok"]
    stored = await world.runs.frames(hands.run, 0, 0, 10)
    assert [(f.epoch, f.sequence, f.events, f.payload) for f in stored] == [(1, 1, 1, b"f1"), (1, 4, 3, b"f4")]
    assert [f.sequence for f in await world.runs.frames(hands.run, 1, 1, 10)] == [4]
    assert [f.sequence for f in await world.runs.frames(hands.run, 0, 0, 1)] == [1]
    assert int(await hands.field("t:first")) >= int(await hands.field("t:claimed"))


async def test_flushing_again_stores_once(world: World, hands: Hands) -> None:
    await hands.own()
    assert [await hands.flush(1), await hands.flush(1)] == ["ok", "ok"]
    assert len(await world.entries(hands.reply)) == 1


@pytest.mark.parametrize("last", [0, 3, 7])
async def test_flush_with_a_gap_writes_nothing(world: World, hands: Hands, last: int) -> None:
    await hands.own()
    await hands.flush(1)
    before = await hands.snapshot()
    assert await hands.flush(last) == "gap"
    assert await hands.snapshot() == before


async def test_flush_after_a_cancel_is_stored_and_says_so(world: World, hands: Hands) -> None:
    await hands.own()
    assert await world.scripts.cancel(hands.run, "client") == "flagged"
    assert [await hands.flush(1), await hands.flush(1)] == ["cancel", "cancel"]
    assert len(await world.entries(hands.reply)) == 1


async def test_expired_stream_is_not_made_anew_without_its_beginning(world: World, hands: Hands) -> None:
    await hands.own()
    await hands.flush(1)
    await world.forget(hands.reply)
    assert await hands.flush(2) == "expired"
    assert await world.entries(hands.reply) == []


async def test_flush_is_pushed_once_to_every_watching_door(world: World, hands: Hands) -> None:
    heard: dict[str, list[bytes]] = {"door": [], "other": [], "third": []}
    for name, messages in heard.items():
        await world.push.listen([f"{hands.p}:push:{name}"], messages.append, lambda: None)
    await hands.own()
    for watcher in ("door#2", "other#1"):
        await world.scripts.watch(hands.run, watcher, add=True)
    await until(lambda: _pushed(world, hands, heard["door"]))
    head, _, rest = heard["door"][-1].removeprefix(MANY).partition(b"\n")
    run, epoch, sequence, events, kind, size, length = head.decode().split()
    assert (run, epoch, events, kind, size, int(length)) == (hands.run, "1", "1", "data", "2", len(rest) - 2)
    assert rest == b"hh" + f"f{sequence}".encode()
    await until(lambda: heard["other"])
    assert heard["third"] == []
    assert all(len(set(messages)) == len(messages) for messages in heard.values())


async def test_frames_of_many_runs_are_stored_together_each_by_its_own_owner(world: World, hands: Hands) -> None:
    heard: list[bytes] = []
    await world.push.listen([f"{hands.p}:push:door"], heard.append, lambda: None)
    stolen, third = Hands(world), Hands(world)
    for one in (hands, stolen, third):
        await one.own()
    await until(lambda: _pushed(world, hands, heard))
    heard.clear()
    last = int(await hands.field("seq")) + 1
    writes = [
        Write(hands.run, "r1:a", 1, last, frame("one")),
        Write(stolen.run, "r2:b", 1, 1, frame("no")),
        Write(third.run, "r1:a", 1, 2, frame("three", 2, headers=b"hh")),
    ]
    assert await world.scripts.flush(writes) == ["ok", "lost", "ok"]
    assert await world.entries(stolen.reply) == []
    await until(lambda: any(third.run.encode() in message for message in heard))
    heads = f"{hands.run} 1 {last} 1 data 0 3 {third.run} 1 2 2 data 2 5\n"
    assert heard[-1] == MANY + heads.encode() + b"one" + b"hh" + b"three"
    assert await world.scripts.flush(writes) == ["ok", "lost", "ok"]
    assert len(await world.entries(third.reply)) == 1


async def test_what_befalls_one_run_touches_no_other_of_the_same_flush(world: World, hands: Hands) -> None:
    broken, after = Hands(world), Hands(world)
    for one in (hands, broken, after):
        await one.own()
    if not isinstance(world, RedisWorld):
        return
    await world.redis.execute("SET", broken.reply, "no stream")
    words = await world.scripts.flush([Write(one.run, "r1:a", 1, 1, frame("x")) for one in (hands, broken, after)])
    assert (words[0], words[2]) == ("ok", "ok") and words[1].startswith("error") and "WRONGTYPE" in words[1]
    assert [await one.field("seq") for one in (hands, broken, after)] == ["1", "0", "1"]


async def _pushed(world: World, hands: Hands, messages: list[bytes]) -> bool:
    """A subscription on a server begins a little later, so flush until one is heard."""
    last = int(await hands.field("seq")) + 1
    assert await store_frame(world.scripts, hands.run, "r1:a", last, frame(f"f{last}", headers=b"hh")) == "ok"
    return bool(messages)


# --- end ------------------------------------------------------------------------------------------------------------


async def test_end_leaves_answer_and_fact_and_nothing_else(world: World, hands: Hands) -> None:
    await hands.own()
    await hands.flush(1)
    assert await hands.end("1-1") == "ok"
    assert (await hands.state(), await hands.field("outcome"), await hands.field("seq")) == ("ended", "completed", "2")
    assert await world.body(hands.run) is None
    assert await world.live(hands.p) == {} and await world.kept_bytes(hands.p) == 0
    assert await world.entries(hands.lane) == [] and await world.pending(hands.lane, "router") == {}
    assert await world.expires(hands.hash) and await world.expires(hands.reply)
    last = (await world.runs.frames(hands.run, 0, 0, 10))[-1]
    assert (last.epoch, last.sequence, last.kind, last.payload, last.headers) == (1, 2, "end", b"last", b"{}")


async def test_terminal_fact_carries_everything(world: World, hands: Hands) -> None:
    await hands.own()
    await hands.flush(1)
    await hands.end("1-1")
    ((_, fact),) = await world.entries(hands.facts)
    assert fact[b"kind"] == b"RequestCompleted" and fact[b"n"] == b"1" and fact[b"run"] == hands.run.encode()
    assert fact[b"e"].startswith(b"RequestCompleted") and fact[b"s"]
    assert {name for name in fact if name.startswith(b"v:")} == {f"v:{family}".encode() for family in FAMILIES}
    times = json.loads(fact[b"t"])
    assert times["accepted"] <= times["cleared"] <= times["claimed"] <= times["first"] <= times["ended"]


async def test_ending_twice_is_ending_once(world: World, hands: Hands) -> None:
    await hands.own()
    assert await hands.end("1-0") == "ok"
    before = await hands.snapshot()
    assert await hands.end("1-0") == "ended"
    assert await hands.snapshot() == before and len(await hands.kinds()) == 1


@pytest.mark.parametrize(
    ("guard", "value", "place"),
    [
        ("owner", "r2:x", "1-0"),
        ("owner", "r1:a", "1-7"),
        ("owner", "r1:a", "0-0"),
        ("state", "queued", "1-0"),
        ("unwatched", "", "1-0"),
    ],
)
async def test_end_whose_guard_does_not_hold_writes_nothing(
    world: World, hands: Hands, guard: str, value: str, place: str
) -> None:
    await hands.own()
    before = await hands.snapshot()
    assert await hands.end(place, value, guard) == "lost"
    assert await hands.snapshot() == before


async def test_end_of_an_unknown_run_is_lost(hands: Hands) -> None:
    assert await hands.end("0-0") == "lost"


@pytest.mark.parametrize("state", ["checking", "queued", "running"])
async def test_sweeper_may_end_a_run_in_any_state_it_saw(world: World, hands: Hands, state: str) -> None:
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "checking": hands.accept,
        "queued": hands.clear,
        "running": hands.own,
    }
    await steps[state]()
    place = "1-0" if state == "running" else "0-0"
    assert await hands.end(place, state, "state") == "ok"
    assert await world.live(hands.p) == {} and await world.entries(hands.lane) == []
    assert await hands.flush(1) == "lost"


async def test_unwatched_guard_spares_a_watched_run(world: World, hands: Hands) -> None:
    await hands.accept()
    assert await hands.end("0-0", "", "unwatched") == "lost"
    await world.scripts.watch(hands.run, "door#1", add=False)
    assert await hands.end("0-0", "", "unwatched") == "ok"


# --- the stale owner -------------------------------------------------------------------------------------------------


async def test_stale_owner_can_write_nothing(world: World, hands: Hands) -> None:
    entry = await hands.own()
    await hands.flush(1)
    await hands.take_over(entry)
    before = await hands.snapshot()
    assert await hands.flush(2) == "lost"
    assert await hands.end("1-1") == "lost"
    assert await hands.end("2-1") == "lost"
    assert await world.scripts.beat(hands.lane, "router", "r1", [Held(entry=entry, run=hands.run, owner="r1:a")]) == [
        "lost"
    ]
    letter = DeadLetter(
        stream=hands.lane,
        group="router",
        consumer="r1",
        entry=entry,
        starts=3,
        sealed=b"x",
        reason="stale",
        run=hands.run,
        place="2-1",
        frame=b"error",
        ending=ending("RequestFailed", hands.run, "failed"),
    )
    assert await world.scripts.dead(letter) == "lost"
    assert await world.scripts.release(hands.lane, "router", "r1", 0, [(entry, 0)]) == 0
    assert (await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:c")).state == "lost"
    assert await hands.snapshot() == before
    assert await hands.flush(2, "r2:b") == "ok"


async def test_same_consumer_with_a_new_nonce_shuts_out_its_former_self(world: World, hands: Hands) -> None:
    entry = await hands.own("r1", "r1:a")
    assert (await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:b")).epoch == 2
    assert await hands.flush(1, "r1:a") == "lost"
    assert await hands.flush(1, "r1:b") == "ok"


async def test_owner_of_a_run_that_was_ended_elsewhere_can_write_nothing(world: World, hands: Hands) -> None:
    await hands.own()
    await hands.end("1-0", "running", "state")
    assert await hands.flush(2) == "lost"
    assert len(await hands.kinds()) == 1


# --- cancel and watch -------------------------------------------------------------------------------------------------


async def test_cancel_in_every_state(world: World, hands: Hands) -> None:
    assert await world.scripts.cancel(hands.run, "client") == "gone"
    await hands.accept()
    assert await world.scripts.cancel(hands.run, "client") == "checking"
    for family in FAMILIES:
        await world.scripts.verdict(answer(hands.run, family))
    assert await world.scripts.cancel(hands.run, "client") == "queued"
    (entry,) = await hands.read(hands.lane, "router", "r1")
    await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
    assert await world.scripts.cancel(hands.run, "client") == "flagged"
    assert await hands.field("cancel") == "client"
    await hands.end("1-0")
    assert await world.scripts.cancel(hands.run, "client") == "ended"


async def test_cancel_reaches_the_owners_channel(world: World, hands: Hands) -> None:
    heard: list[bytes] = []
    await world.push.listen([f"{hands.p}:push:r1"], heard.append, lambda: None)
    await hands.own()

    async def again() -> bool:
        await world.scripts.cancel(hands.run, "client")
        return bool(heard)

    await until(again)
    assert heard[0] == f"cancel {hands.run}".encode()


async def test_cancel_only_if_nobody_watches(world: World, hands: Hands) -> None:
    await hands.own()
    assert await world.scripts.cancel(hands.run, "client", unwatched=True) == "watched"
    await world.scripts.watch(hands.run, "door#1", add=False)
    assert await world.scripts.cancel(hands.run, "client", unwatched=True) == "flagged"


async def test_watchers_come_and_go(world: World, hands: Hands) -> None:
    await hands.accept(policy="grace:5")
    assert (await world.scripts.watch(hands.run, "door#2", add=True)).policy == "undecided"
    await world.scripts.verdict(answer(hands.run, "authorization"))
    seen = await world.scripts.watch(hands.run, "door#2", add=True)
    assert (seen.state, seen.watchers, seen.policy, seen.epoch, seen.sequence) == ("checking", 2, "grace:5", 0, 0)
    assert (await world.scripts.watch(hands.run, "door#2", add=True)).watchers == 2
    assert (await world.scripts.watch(hands.run, "door#1", add=False)).watchers == 1
    assert (await world.scripts.watch(hands.run, "door#1", add=False)).watchers == 1
    assert (await world.scripts.watch(hands.run, "door#2", add=False)).watchers == 0


async def test_lost_door_takes_all_its_watchers_and_no_others(world: World, hands: Hands) -> None:
    await hands.accept()
    for watcher in ("door#2", "doors#1", "other#1"):
        await world.scripts.watch(hands.run, watcher, add=True)
    assert (await world.scripts.watch(hands.run, "door#", add=False)).watchers == 2
    assert set((await hands.field("watchers")).split()) == {"doors#1", "other#1"}


async def test_ended_run_tells_its_state_and_takes_no_watcher(world: World, hands: Hands) -> None:
    await hands.own()
    await hands.end("1-0")
    before = await hands.snapshot()
    assert (await world.scripts.watch(hands.run, "late#1", add=True)).state == "ended"
    assert await hands.snapshot() == before


async def test_unknown_run_cannot_be_watched(world: World, hands: Hands) -> None:
    assert (await world.scripts.watch(hands.run, "door#1", add=True)).state == "gone"
    assert await hands.state() == ""


async def test_run_ids_of_other_shapes_have_no_fields(world: World) -> None:
    assert await world.runs.fields(f"{POOL}; DROP") == {}
