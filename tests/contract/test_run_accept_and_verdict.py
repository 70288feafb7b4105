"""A run's way in: acceptance within bounds, verdicts in every order, cleared or refused exactly once."""

from __future__ import annotations

import itertools

import pytest

from base.ids import mint_run_id
from tests.run_support import CHANCE, CLOCK, FAMILIES, LANE, POOL, Hands, World, answer, orders

_GUARD_OUTCOMES = ("pass", "refuse", "edits", "skip")


async def test_accepted_run_is_whole(world: World, hands: Hands) -> None:
    assert await hands.accept() == (True, 1)
    fields = await world.runs.fields(hands.run)
    assert (fields["state"], fields["seq"], fields["epoch"]) == (b"checking", b"0", b"0")
    assert fields["families"].decode().split() == list(FAMILIES)
    assert await world.runs.checking_body(hands.run) == b"b" * 100
    assert await world.kept_bytes(hands.p) == 100
    assert set(fields["a"].decode().split()) == {"accepted", hands.run}
    (entry,) = await world.entries(hands.requests)
    assert set(entry[1]) == {b"e", b"s"}


async def test_due_time_is_the_checks_first_and_the_deadline_after_clearing(world: World, hands: Hands) -> None:
    await hands.accept(checks_ms=5_000, deadline_ms=60_000)
    accepted, deadline = int(await hands.field("t:accepted")), int(await hands.field("deadline"))
    assert (await world.live(hands.p))[hands.run] == accepted + 5_000
    assert deadline == accepted + 60_000
    for family in FAMILIES:
        await world.scripts.verdict(answer(hands.run, family))
    assert (await world.live(hands.p))[hands.run] == deadline


async def test_accepting_again_is_the_same_run(world: World, hands: Hands) -> None:
    await hands.accept()
    assert await hands.accept() == (True, 1)
    assert len(await world.entries(hands.requests)) == 1
    assert await world.kept_bytes(hands.p) == 100


async def test_bound_by_count_refuses_and_writes_nothing(world: World, hands: Hands) -> None:
    assert (await hands.accept(most_runs=1))[0]
    late = Hands(world)
    assert await late.accept(most_runs=1) == (False, 1)
    assert await late.state() == "" and await world.body(late.run) is None
    assert len(await world.entries(hands.requests)) == 1


async def test_accepted_run_is_told_so_even_when_the_bound_is_reached_since(hands: Hands) -> None:
    await hands.accept(most_runs=1)
    assert await hands.accept(most_runs=1) == (True, 1)


async def test_bound_by_bytes_refuses_only_what_does_not_fit(world: World, hands: Hands) -> None:
    await hands.accept(most_bytes=150)
    assert await Hands(world).accept(most_bytes=150) == (False, 1)
    assert (await Hands(world).accept(most_bytes=150, body=b"b" * 50))[0]


async def test_ended_run_makes_room_again(world: World, hands: Hands) -> None:
    await hands.accept(most_runs=1, most_bytes=100)
    await world.scripts.verdict(answer(hands.run, "authorization", "refuse"))
    assert await world.kept_bytes(hands.p) == 0
    assert await Hands(world).accept(most_runs=1, most_bytes=100) == (True, 1)


async def test_partitions_have_bounds_of_their_own(world: World, hands: Hands) -> None:
    await hands.accept(most_runs=1)
    assert (await Hands(world, mint_run_id(CLOCK, CHANCE, 3)).accept(most_runs=1))[0]


async def test_all_pass_clears_once(world: World, hands: Hands) -> None:
    await hands.clear()
    assert await hands.state() == "queued"
    assert len(await world.entries(hands.lane)) == 1
    assert await world.lanes(hands.p) == {hands.lane}
    assert await hands.kinds() == []


async def test_clearing_names_the_lane_even_when_a_router_made_the_stream_first(world: World, hands: Hands) -> None:
    await (await world.groups()).ensure(hands.lane, "router")
    await hands.clear()
    assert await world.lanes(hands.p) == {hands.lane}
    assert len(await hands.read(hands.lane, "router", "r1")) == 1


async def test_verdict_acknowledges_its_own_entry_only(world: World, hands: Hands) -> None:
    await hands.accept()
    for family in FAMILIES:
        await hands.read(hands.requests, family, "c1")
    (entry,) = await world.pending(hands.requests, "rules")
    await world.scripts.verdict(answer(hands.run, "rules", entry=entry))
    assert await world.pending(hands.requests, "rules") == {}
    assert await world.pending(hands.requests, "persons") == {entry: "c1"}


async def test_guards_refusal_is_held_until_authorization_answered(world: World, hands: Hands) -> None:
    await hands.accept()
    assert await world.scripts.verdict(answer(hands.run, "rules", "refuse")) == (False, "checking")
    assert await world.scripts.verdict(answer(hands.run, "persons", "refuse")) == (False, "checking")
    assert await world.entries(hands.reply) == [] and await hands.kinds() == []
    assert await world.scripts.verdict(answer(hands.run, "authorization")) == (True, "ended")
    ((place, frame),) = await world.entries(hands.reply)
    assert (place, frame[b"k"], frame[b"d"]) == ("0-1", b"error", b"no of rules")


async def test_authorizations_refusal_hides_a_guards_refusal(world: World, hands: Hands) -> None:
    await hands.accept()
    await world.scripts.verdict(answer(hands.run, "rules", "refuse"))
    await world.scripts.verdict(answer(hands.run, "authorization", "refuse"))
    ((_, frame),) = await world.entries(hands.reply)
    assert frame[b"d"] == b"no of authorization"


async def test_refusal_does_not_wait_for_the_other_guards(world: World, hands: Hands) -> None:
    await hands.accept()
    await world.scripts.verdict(answer(hands.run, "authorization"))
    assert await world.scripts.verdict(answer(hands.run, "persons", "refuse")) == (True, "ended")


async def test_refused_run_is_freed_and_its_fact_carries_everything(world: World, hands: Hands) -> None:
    await hands.accept()
    await world.scripts.verdict(answer(hands.run, "rules", "edits"))
    await world.scripts.verdict(answer(hands.run, "authorization", "refuse"))
    assert await world.body(hands.run) is None and await world.live(hands.p) == {}
    assert await world.expires(hands.hash) and await world.expires(hands.reply)
    ((_, fact),) = await world.entries(hands.facts)
    assert fact[b"kind"] == b"RequestRefused" and fact[b"run"] == hands.run.encode()
    assert fact[b"a"].startswith(b"accepted ") and fact[b"as"]
    assert fact[b"v:rules"] == b"verdict rules edits" and fact[b"v:authorization"] == b"verdict authorization refuse"
    assert b"v:persons" not in fact
    assert await hands.field("outcome") == "refused"


async def test_late_verdict_only_acknowledges(world: World, hands: Hands) -> None:
    await hands.accept()
    (entry,) = await hands.read(hands.requests, "rules", "c1")
    await world.scripts.verdict(answer(hands.run, "authorization", "refuse"))
    before = await hands.snapshot()
    assert await world.scripts.verdict(answer(hands.run, "rules", "refuse", entry)) == (False, "ended")
    assert await hands.snapshot() == before
    assert await world.pending(hands.requests, "rules") == {}


async def test_verdict_about_an_unknown_run_only_acknowledges(world: World, hands: Hands) -> None:
    entry = await world.add(hands.requests, {"e": b"x", "s": b"y"})
    await hands.read(hands.requests, "rules", "c1")
    assert await world.scripts.verdict(answer(hands.run, "rules", entry=entry)) == (False, "gone")
    assert await world.pending(hands.requests, "rules") == {} and await hands.state() == ""


async def test_answer_of_a_family_nobody_asked_is_not_stored(world: World, hands: Hands) -> None:
    await hands.accept(families=("authorization",))
    assert await world.scripts.verdict(answer(hands.run, "rules", "refuse")) == (False, "checking")
    assert await hands.field("o:rules") == ""
    assert await world.scripts.verdict(answer(hands.run, "authorization")) == (True, "queued")


async def test_missing_verdict_counts_as_answered(world: World, hands: Hands) -> None:
    await hands.accept()
    await world.scripts.verdict(answer(hands.run, "authorization"))
    await world.scripts.verdict(answer(hands.run, "rules"))
    assert await world.scripts.verdict(answer(hands.run, "persons", "missing")) == (True, "queued")
    assert await hands.field("o:persons") == "missing"


@pytest.mark.parametrize("first", ["pass", "refuse"])
async def test_every_order_and_every_duplicate_of_verdicts(world: World, first: str) -> None:
    """All outcomes of three families in all orders, each answer said again after every step with the opposite word."""
    for rules, persons in itertools.product(_GUARD_OUTCOMES, repeat=2):
        said = {"authorization": first, "rules": rules, "persons": persons}
        for order in orders(FAMILIES):
            await _one_order(world, said, order)


async def _one_order(world: World, said: dict[str, str], order: tuple[str, ...]) -> None:
    hands = Hands(world)
    await hands.accept(most_runs=10_000, most_bytes=10_000_000)
    heard: list[str] = []
    moves = 0
    for family in order:
        moves += (await world.scripts.verdict(answer(hands.run, family, said[family])))[0]
        heard.append(family)
        for earlier in heard:
            opposite = "pass" if said[earlier] == "refuse" else "refuse"
            moves += (await world.scripts.verdict(answer(hands.run, earlier, opposite)))[0]
        assert await hands.state() == _expected(said, heard), (said, heard)
    assert moves == 1
    cleared = [fields for _, fields in await world.entries(hands.lane) if hands.run.encode() in fields[b"e"]]
    refused = [fields for _, fields in await world.entries(hands.facts) if fields[b"run"] == hands.run.encode()]
    if "refuse" in said.values():
        by = "authorization" if said["authorization"] == "refuse" else _first_refusal(said, order)
        assert (len(cleared), len(refused)) == (0, 1)
        ((place, frame),) = await world.entries(hands.reply)
        assert (place, frame[b"d"]) == ("0-1", f"no of {by}".encode()), (said, order)
    else:
        assert (len(cleared), len(refused)) == (1, 0)


def _expected(said: dict[str, str], heard: list[str]) -> str:
    if "authorization" not in heard:
        return "checking"
    if any(said[family] == "refuse" for family in heard):
        return "ended"
    return "queued" if len(heard) == len(FAMILIES) else "checking"


def _first_refusal(said: dict[str, str], order: tuple[str, ...]) -> str:
    """Who is shown: of the refusals known when authorization had answered (or the one after), the first family."""
    known: list[str] = []
    for family in order:
        known.append(family)
        refusing = [name for name in FAMILIES if name in known and said[name] == "refuse"]
        if "authorization" in known and refusing:
            return refusing[0]
    raise AssertionError("nobody refused")


async def test_cleared_entry_is_the_same_bytes_everywhere(world: World, hands: Hands) -> None:
    await hands.clear()
    ((_, fields),) = await world.entries(hands.lane)
    run = hands.run
    assert fields == {
        b"e": (
            f'{{"id":"{run}/cleared","type":"RequestCleared","v":1,"by":"script","run":"{run}",'
            f'"data":{{"run":"{run}","pool":"{POOL}","lane":"{LANE}"}}}}'
        ).encode()
    }
