"""Scripts of a group: beat, take, release, dead, trim, retire."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.scripts import DeadLetter, Held
from tests.run_support import Hands, World, answer, ending


async def _held(world: World, hands: Hands, group: str = "rules", consumer: str = "c1") -> str:
    """One entry of `requests` in the hands of a consumer."""
    await hands.accept()
    (entry,) = await hands.read(hands.requests, group, consumer)
    return entry


def _letter(hands: Hands, entry: str, **changes: Any) -> DeadLetter:
    said: dict[str, Any] = {
        "stream": hands.requests,
        "group": "rules",
        "consumer": "c1",
        "entry": entry,
        "starts": 3,
        "sealed": b"sealed",
        "reason": "it raised",
    }
    ends = {"run": hands.run, "place": "0-0", "frame": b"error", "ending": ending("RequestFailed", hands.run, "failed")}
    return DeadLetter(**{**said, **(ends if changes.pop("genuine", False) else {}), **changes})


# --- beat -----------------------------------------------------------------------------------------------------------


async def test_beat_keeps_an_entry_from_falling_idle(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.release(hands.requests, "rules", "c1", 9_000, [(entry, 0)])
    groups = await world.groups()
    assert await groups.idle(hands.requests, "rules", 5_000, 10) == [entry]
    assert await world.scripts.beat(hands.requests, "rules", "c1", [Held(entry=entry)]) == ["ok"]
    assert await groups.idle(hands.requests, "rules", 5_000, 10) == []


async def test_beat_never_takes_back(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.take(hands.requests, "rules", "c2", 0, entry)
    assert await world.scripts.beat(hands.requests, "rules", "c1", [Held(entry=entry)]) == ["lost"]
    assert await world.pending(hands.requests, "rules") == {entry: "c2"}


async def test_beat_tells_of_each_entry_apart(world: World, hands: Hands) -> None:
    first = await hands.own("r1", "r1:a")
    other = Hands(world)
    second = await other.own("r1", "r1:b")
    await world.scripts.cancel(other.run, "client")
    held = [
        Held(entry=first, run=hands.run, owner="r1:a"),
        Held(entry=second, run=other.run, owner="r1:b"),
        Held(entry=first, run=hands.run, owner="r1:old"),
        Held(entry="1-1"),
    ]
    assert await world.scripts.beat(hands.lane, "router", "r1", held) == ["ok", "cancel", "lost", "lost"]


async def test_beat_of_an_ended_run_says_lost(world: World, hands: Hands) -> None:
    entry = await hands.own()
    await hands.end("1-0", "running", "state")
    held = [Held(entry=entry, run=hands.run, owner="r1:a")]
    assert await world.scripts.beat(hands.lane, "router", "r1", held) == ["lost"]


# --- take -----------------------------------------------------------------------------------------------------------


async def test_take_counts_every_start(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    for expected in (1, 2, 3):
        taken = await world.scripts.take(hands.requests, "rules", f"c{expected + 1}", 0, entry)
        assert (taken.state, taken.starts) == ("taken", expected)
        assert set(taken.fields) == {b"e", b"s"}
    assert await world.starts(hands.requests, "rules") == {entry: 3}
    assert await world.pending(hands.requests, "rules") == {entry: "c4"}


async def test_take_leaves_a_lively_holder_alone(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    assert (await world.scripts.take(hands.requests, "rules", "c2", 60_000, entry)).state == "idle_no_more"
    assert await world.pending(hands.requests, "rules") == {entry: "c1"}
    assert await world.starts(hands.requests, "rules") == {}


async def test_take_of_an_acknowledged_entry_is_nothing(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.verdict(answer(hands.run, "rules", entry=entry))
    assert (await world.scripts.take(hands.requests, "rules", "c2", 0, entry)).state == "idle_no_more"


async def test_entry_deleted_under_its_holder_leaves_the_pending_list(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    groups = await world.groups()
    await groups.mark(hands.requests, "rules", entry)
    await world.delete(hands.requests, entry)
    assert (await world.scripts.take(hands.requests, "rules", "c2", 0, entry)).state == "missing"
    assert await world.pending(hands.requests, "rules") == {}
    assert await world.starts(hands.requests, "rules") == {}


async def test_acknowledging_forgets_the_starts(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    groups = await world.groups()
    await groups.mark(hands.requests, "rules", entry)
    assert await world.starts(hands.requests, "rules") == {entry: 1}
    await groups.ack(hands.requests, "rules", [(entry, True)])
    assert await world.starts(hands.requests, "rules") == {}
    assert await world.pending(hands.requests, "rules") == {}


# --- release --------------------------------------------------------------------------------------------------------


async def test_release_restores_the_count_and_makes_claimable(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.take(hands.requests, "rules", "c2", 0, entry)
    await world.scripts.take(hands.requests, "rules", "c3", 0, entry)
    for _ in range(2):
        assert await world.scripts.release(hands.requests, "rules", "c3", 5_000, [(entry, 1)]) == 1
        assert await world.starts(hands.requests, "rules") == {entry: 1}
    taken = await world.scripts.take(hands.requests, "rules", "c4", 5_000, entry)
    assert (taken.state, taken.starts) == ("taken", 2)


async def test_release_of_a_fresh_entry_leaves_no_count(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    assert await world.scripts.release(hands.requests, "rules", "c1", 0, [(entry, 0)]) == 1
    assert await world.starts(hands.requests, "rules") == {}
    assert (await world.scripts.take(hands.requests, "rules", "c2", 1_000, entry)).state == "idle_no_more"


async def test_release_leaves_what_another_holds(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.take(hands.requests, "rules", "c2", 0, entry)
    assert await world.scripts.release(hands.requests, "rules", "c1", 5_000, [(entry, 0)]) == 0
    assert await world.starts(hands.requests, "rules") == {entry: 1}


# --- dead -----------------------------------------------------------------------------------------------------------


async def test_dead_letter_keeps_entry_origin_starts_and_reason(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    assert await world.scripts.dead(_letter(hands, entry)) == "dead"
    ((_, letter),) = await world.entries(f"{hands.p}:dlq")
    assert letter[b"stream"] == hands.requests.encode() and letter[b"group"] == b"rules"
    assert (letter[b"entry"], letter[b"starts"], letter[b"reason"]) == (entry.encode(), b"3", b"it raised")
    assert letter[b"d"] == b"sealed"
    assert await world.pending(hands.requests, "rules") == {}


async def test_dead_entry_touches_no_run_unless_asked(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.dead(_letter(hands, entry))
    assert await hands.state() == "checking" and await hands.kinds() == []


async def test_dead_entry_ends_its_run_when_asked(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.dead(_letter(hands, entry, genuine=True))
    assert (await hands.state(), await hands.field("outcome")) == ("ended", "failed")
    assert await hands.kinds() == ["RequestFailed"]
    assert await world.live(hands.p) == {} and await world.body(hands.run) is None
    ((_, reply),) = await world.entries(hands.reply)
    assert (reply[b"k"], reply[b"d"]) == (b"error", b"error")


async def test_dead_entry_does_not_end_a_run_that_moved_on(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    assert await world.scripts.dead(_letter(hands, entry, genuine=True, place="1-4")) == "dead"
    assert await hands.state() == "checking"


async def test_dead_letter_of_a_lost_entry_is_not_written(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    await world.scripts.take(hands.requests, "rules", "c2", 0, entry)
    assert await world.scripts.dead(_letter(hands, entry, genuine=True)) == "lost"
    assert await world.entries(f"{hands.p}:dlq") == [] and await hands.state() == "checking"


async def test_dead_cleared_entry_leaves_the_lane(world: World, hands: Hands) -> None:
    entry = await hands.own()
    letter = _letter(hands, entry, genuine=True, stream=hands.lane, group="router", consumer="r1", place="1-0")
    assert await world.scripts.dead(letter) == "dead"
    assert await world.entries(hands.lane) == [] and await world.pending(hands.lane, "router") == {}
    assert await hands.state() == "ended"


async def test_dead_letters_of_unpartitioned_streams_share_their_slot(world: World, hands: Hands) -> None:
    await world.add("commands", {"e": b"x"})
    (entry,) = await hands.read("commands", "provisioner", "c1")
    await (await world.groups()).mark("commands", "provisioner", entry)
    letter = _letter(hands, entry, stream="commands", group="provisioner")
    assert await world.scripts.dead(letter) == "dead"
    assert len(await world.entries("{commands}:dlq")) == 1
    assert await world.starts("commands", "provisioner") == {}


# --- trim and retire ------------------------------------------------------------------------------------------------


async def test_trim_drops_only_what_every_group_acknowledged(world: World, hands: Hands) -> None:
    groups = await world.groups()
    ids = [await world.add("commands", {"e": str(n).encode()}) for n in range(4)]
    assert await world.scripts.trim("commands", ["a", "b"]) == 0
    for name in ("a", "b"):
        await groups.ensure("commands", name)
    assert await world.scripts.trim("commands", ["a", "b"]) == 0
    for name in ("a", "b"):
        await groups.read(["commands"], name, "c1", 3, 10)
    await groups.ack("commands", "a", [(id, False) for id in ids[:3]])
    await groups.ack("commands", "b", [(ids[0], False), (ids[2], False)])
    assert await world.scripts.trim("commands", ["a", "b"]) == 1
    assert [id for id, _ in await world.entries("commands")] == ids[1:]
    await groups.ack("commands", "b", [(ids[1], False)])
    assert await world.scripts.trim("commands", ["a", "b"]) == 2
    assert [id for id, _ in await world.entries("commands")] == ids[3:]
    assert await world.scripts.trim("commands", ["a", "b"]) == 0


async def test_trim_waits_for_a_group_that_does_not_exist_yet(world: World, hands: Hands) -> None:
    await world.add("commands", {"e": b"x"})
    (entry,) = await hands.read("commands", "a", "c1")
    await (await world.groups()).ack("commands", "a", [(entry, False)])
    assert await world.scripts.trim("commands", ["a", "late"]) == 0
    assert await world.scripts.trim("commands", ["a"]) == 1


async def test_trim_of_a_missing_stream_is_nothing(world: World) -> None:
    assert await world.scripts.trim("commands", ["a"]) == 0


async def test_retire_only_at_zero_pending(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    assert not await world.scripts.retire(hands.requests, "rules", "c1")
    assert await world.pending(hands.requests, "rules") == {entry: "c1"}
    await world.scripts.verdict(answer(hands.run, "rules", entry=entry))
    assert await world.scripts.retire(hands.requests, "rules", "c1")
    assert await world.consumers(hands.requests, "rules") == set()


async def test_what_a_dead_consumer_holds_is_idle_at_once_and_nobody_elses(world: World, hands: Hands) -> None:
    entry = await _held(world, hands)
    assert await world.scripts.disown(hands.requests, "rules", "another", 60_000) == 0
    assert (await world.scripts.take(hands.requests, "rules", "c2", 60_000, entry)).state == "idle_no_more"
    assert await world.scripts.disown(hands.requests, "rules", "c1", 60_000) == 1
    taken = await world.scripts.take(hands.requests, "rules", "c2", 60_000, entry)
    assert (taken.state, taken.starts) == ("taken", 1)
    assert await world.scripts.disown(hands.requests, "rules", "c1", 60_000) == 0
    assert await world.pending(hands.requests, "rules") == {entry: "c2"}


@pytest.mark.parametrize("count", [1, 3])
async def test_new_group_is_given_what_was_published_before_it(world: World, hands: Hands, count: int) -> None:
    ids = [await world.add("commands", {"e": b"x"}) for _ in range(count)]
    assert await hands.read("commands", "a", "c1") == ids
    assert await hands.read("commands", "a", "c1") == []
