"""Every call of every script fails once, on a real server; then the script runs again.

After the failure nothing forbidden has happened: no entry is acknowledged without its whole effect, no run is ended
without its fact. After the repeat everything stands as after one clean run. Facts, dead letters and stream entries may
be there twice under one id (delivery is at least once), so they are compared as sets.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import runtime
from runtime.acceptance import Repeat
from runtime.claims import Taker
from runtime.client import Client, ServerError
from runtime.names import prefix_of
from runtime.scripts import HEADS, DeadLetter, Held, RedisScripts, Scripts
from runtime.together import RedisPuller, Want
from schemas.ports import Mark
from tests.run_support import (
    FAMILIES,
    LANE,
    POOL,
    RETENTION_MS,
    Hands,
    RedisWorld,
    acceptance,
    answer,
    ending,
    frame,
    open_world,
    store_frame,
    verdicts,
)

_PARTS = ("tenants", "tenant:org", "passed", "waiting")
DAY_MS = 86_400_000
_MOST_CALLS = 80  # no script of ours comes near


def broken(text: str, nth: int) -> str:
    """The script with its nth call of the server (counted as it runs) replaced by an error."""
    head, _, rest = text.partition("\n")
    guard = (
        "local server, made = redis, 0 "
        f"local function due() made = made + 1 return made == {nth} end "
        "local redis = {setresp = server.setresp, "
        "call = function(...) if due() then error('injected') end return server.call(...) end, "
        "pcall = function(...) if due() then return {err = 'ERR injected'} end return server.pcall(...) end}"
    )
    return f"{head}\n{guard}\n{rest}"


class Breaking:
    """A server on which the nth call of the next script fails. reached: whether the script came that far."""

    def __init__(self, redis: Client, nth: int) -> None:
        self._redis, self._nth = redis, nth
        self.reached = False

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        return await self._redis.execute(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        try:
            said = await self._redis.script(broken(text, self._nth), keys, args)
        except ServerError as error:
            self.reached = "injected" in str(error)
            raise
        self.reached = b"injected" in repr(said).encode()
        return said


@dataclass
class Stage:
    """A prepared run: what the script is told, and the entry that it may acknowledge."""

    hands: Hands
    act: Callable[[Scripts], Awaitable[object]]
    stream: str = ""
    group: str = ""
    entry: str = ""
    astray: bool = False  # the run is cleared, and neither waits nor lies in a lane
    gated: bool = False  # runs wait: what a cut-off step left in the index is dropped by the next one with room


_READING = {"places"}  # these write nothing
_DELIVERING = {"pull"}  # asked again it delivers what is next; what it has delivered is pending, see below

Prepare = Callable[[RedisWorld], Awaitable[Stage]]
_STAGES: dict[str, Prepare] = {}


def stage(prepare: Prepare) -> Prepare:
    """Register a way to prepare one script's call; its name begins with the script's."""
    _STAGES[prepare.__name__.lstrip("_")] = prepare
    return prepare


@stage
async def _accept(world: RedisWorld) -> Stage:
    hands = Hands(world)
    return Stage(hands, lambda s: s.accept(acceptance(hands.run)))


@stage
async def _accept_in_the_background(world: RedisWorld) -> Stage:
    hands = Hands(world)
    new = acceptance(hands.run, keep_ms=DAY_MS, keep_body=True, background=True)
    return Stage(hands, lambda s: s.accept(new))


@stage
async def _accept_after_a_drift(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await world.redis.execute("SET", f"{hands.p}:bytes", 77)
    return Stage(hands, lambda s: s.accept(acceptance(hands.run)))


_ONCE = Repeat(marks=(Mark("now", "asked"), Mark("before", "asked")), asked=True)


@stage
async def _accept_once(world: RedisWorld) -> Stage:
    hands = Hands(world)
    return Stage(hands, lambda s: s.accept_once(acceptance(hands.run, keep_ms=DAY_MS), _ONCE))


@stage
async def _archived(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.own()
    await hands.end("1-0")
    return Stage(hands, lambda s: s.archived(hands.run))


@stage
async def _archived_with_its_body(world: RedisWorld) -> Stage:
    hands = await _kept(world)
    await hands.end("1-0")
    return Stage(hands, lambda s: s.archived(hands.run))


@stage
async def _forget(world: RedisWorld) -> Stage:
    hands = await _kept(world)
    await hands.end("1-0")
    return Stage(hands, lambda s: s.forget(hands.run))


async def _kept(world: RedisWorld) -> Hands:
    """A running run whose body is kept with its answer."""
    hands = Hands(world)
    await hands.accept(keep_ms=DAY_MS, keep_body=True, background=True)
    for family in FAMILIES:
        await world.scripts.verdict(answer(hands.run, family))
    (entry,) = await hands.read(hands.lane, "router", "r1")
    await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
    return hands


async def _verdicts(world: RedisWorld, before: Sequence[str], family: str, outcome: str, *, first: bool) -> Stage:
    """Families of `before` passed; then `family` answers. first: nobody made the lane yet."""
    hands = Hands(world)
    await hands.accept()
    if not first:
        await (await world.groups()).ensure(hands.lane, "router")
    for earlier in before:
        await world.scripts.verdict(answer(hands.run, earlier))
    (entry,) = await hands.read(hands.requests, family, "c1")
    said = answer(hands.run, family, outcome, entry)
    return Stage(hands, lambda s: s.verdict(said), hands.requests, family, entry)


@stage
async def _verdict_that_is_not_the_last(world: RedisWorld) -> Stage:
    return await _verdicts(world, (), "rules", "refuse", first=True)


@stage
async def _verdict_of_all_families_at_once(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.accept()
    (entry,) = await hands.read(hands.requests, "rules", "c1")
    said = [answer(hands.run, family, "pass", entry if family == "rules" else "") for family in FAMILIES]
    return Stage(hands, lambda s: verdicts(s, said), hands.requests, "rules", entry)


@stage
async def _verdict_that_clears_into_a_new_lane(world: RedisWorld) -> Stage:
    return await _verdicts(world, FAMILIES[:2], "persons", "pass", first=True)


@stage
async def _verdict_that_clears_into_a_known_lane(world: RedisWorld) -> Stage:
    return await _verdicts(world, FAMILIES[1:], "authorization", "pass", first=False)


@stage
async def _verdict_that_refuses(world: RedisWorld) -> Stage:
    return await _verdicts(world, ("rules",), "authorization", "refuse", first=True)


@stage
async def _verdict_that_comes_late(world: RedisWorld) -> Stage:
    made = await _verdicts(world, (), "rules", "refuse", first=True)
    await world.scripts.verdict(answer(made.hands.run, "authorization", "refuse"))
    return made


@stage
async def _claim(world: RedisWorld) -> Stage:
    hands = Hands(world)
    entry = await hands.queue()
    return Stage(hands, lambda s: s.claim(hands.run, hands.lane, entry, "r1", "r1:a"))


@stage
async def _claim_that_takes_over(world: RedisWorld) -> Stage:
    hands = Hands(world)
    entry = await hands.own()
    await hands.flush(1)
    await world.scripts.take(hands.lane, "router", "r2", 0, entry)
    return Stage(hands, lambda s: s.claim(hands.run, hands.lane, entry, "r2", "r2:b"))


@stage
async def _claim_of_a_stale_entry(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.own()
    stale = await world.add(hands.lane, {"e": b"duplicate"})
    await hands.read(hands.lane, "router", "r2")
    act = lambda s: s.claim(hands.run, hands.lane, stale, "r2", "r2:b")  # noqa: E731
    return Stage(hands, act, hands.lane, "router", stale)


@stage
async def _flush_of_the_first_frame(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.own()
    return Stage(hands, lambda s: store_frame(s, hands.run, "r1:a", 2, frame("f", 2, headers=b"{}")))


@stage
async def _flush_of_a_later_frame(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.own()
    await hands.flush(1)
    return Stage(hands, lambda s: store_frame(s, hands.run, "r1:a", 2, frame("f")))


def _end(hands: Hands, guard: str, value: str, place: str) -> Callable[[Scripts], Awaitable[object]]:
    fact = ending("RequestCompleted", hands.run)
    return lambda s: s.end(hands.run, guard, value, place, frame("last", kind="end"), fact)


@stage
async def _end_by_its_owner(world: RedisWorld) -> Stage:
    hands = Hands(world)
    entry = await hands.own()
    await hands.flush(1)
    return Stage(hands, _end(hands, "owner", "r1:a", "1-1"), hands.lane, "router", entry)


@stage
async def _end_that_keeps_the_body(world: RedisWorld) -> Stage:
    hands = await _kept(world)
    other = Hands(world)
    await other.accept()
    return Stage(hands, _end(hands, "owner", "r1:a", "1-0"), hands.lane, "router", await hands.field("entry"))


@stage
async def _end_by_the_sweeper(world: RedisWorld) -> Stage:
    hands = Hands(world)
    entry = await hands.queue()
    return Stage(hands, _end(hands, "state", "queued", "0-0"), hands.lane, "router", entry)


@stage
async def _end_of_an_unwatched_run(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.accept(watcher="")
    return Stage(hands, _end(hands, "unwatched", "", "0-0"))


@stage
async def _cancel(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.own()
    return Stage(hands, lambda s: s.cancel(hands.run, "client"))


@stage
async def _watch(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.accept()
    return Stage(hands, lambda s: s.watch(hands.run, "door#2", add=True))


@stage
async def _watch_no_more(world: RedisWorld) -> Stage:
    hands = Hands(world)
    await hands.own()
    return Stage(hands, lambda s: s.watch(hands.run, "door#1", add=False))


async def _read_entry(world: RedisWorld) -> tuple[Hands, str]:
    hands = Hands(world)
    await hands.accept()
    return hands, (await hands.read(hands.requests, "rules", "c1"))[0]


@stage
async def _beat(world: RedisWorld) -> Stage:
    hands = Hands(world)
    entry = await hands.own()
    held = [Held(entry=entry, run=hands.run, owner="r1:a")]
    return Stage(hands, lambda s: s.beat(hands.lane, "router", "r1", held))


def _take(hands: Hands, entry: str) -> Callable[[Scripts], Awaitable[object]]:
    return lambda s: s.take(hands.requests, "rules", "c2", 0, entry)


@stage
async def _take_of_a_deleted_entry(world: RedisWorld) -> Stage:
    hands, entry = await _read_entry(world)
    await world.delete(hands.requests, entry)
    return Stage(hands, _take(hands, entry), hands.requests, "rules", entry)


@stage
async def _release(world: RedisWorld) -> Stage:
    hands, entry = await _read_entry(world)
    await world.scripts.take(hands.requests, "rules", "c1", 0, entry)
    await world.scripts.take(hands.requests, "rules", "c1", 0, entry)
    return Stage(hands, lambda s: s.release(hands.requests, "rules", "c1", 0, [(entry, 1)]))


def _letter(hands: Hands, stream: str, group: str, entry: str, place: str) -> DeadLetter:
    ends: dict[str, Any] = {"run": hands.run, "place": place, "frame": b"error"} if place else {}
    return DeadLetter(
        stream=stream,
        group=group,
        consumer="c1",
        entry=entry,
        starts=3,
        sealed=b"x",
        reason="why",
        ending=ending("RequestFailed", hands.run, "failed"),
        **ends,
    )


@stage
async def _dead_entry_alone(world: RedisWorld) -> Stage:
    hands, entry = await _read_entry(world)
    letter = _letter(hands, hands.requests, "rules", entry, "")
    return Stage(hands, lambda s: s.dead(letter), hands.requests, "rules", entry)


@stage
async def _dead_entry_with_its_run(world: RedisWorld) -> Stage:
    hands, entry = await _read_entry(world)
    letter = _letter(hands, hands.requests, "rules", entry, "0-0")
    return Stage(hands, lambda s: s.dead(letter), hands.requests, "rules", entry)


@stage
async def _dead_cleared_entry(world: RedisWorld) -> Stage:
    hands = Hands(world)
    entry = await hands.own("c1", "c1:a")
    await world.scripts.take(hands.lane, "router", "c1", 0, entry)
    letter = _letter(hands, hands.lane, "router", entry, "1-0")
    return Stage(hands, lambda s: s.dead(letter), hands.lane, "router", entry)


@stage
async def _trim(world: RedisWorld) -> Stage:
    hands, entry = await _read_entry(world)
    await (await world.groups()).ack(hands.requests, "rules", [(entry, False)])
    return Stage(hands, lambda s: s.trim(hands.requests, ["rules"]))


@stage
async def _retire(world: RedisWorld) -> Stage:
    hands, entry = await _read_entry(world)
    await (await world.groups()).ack(hands.requests, "rules", [(entry, False)])
    return Stage(hands, lambda s: s.retire(hands.requests, "rules", "c1"))


@stage
async def _disown(world: RedisWorld) -> Stage:
    hands, _ = await _read_entry(world)
    return Stage(hands, lambda s: s.disown(hands.requests, "rules", "c1", 1500))


# --- the gate -------------------------------------------------------------------------------------------------------


async def _waiting(world: RedisWorld) -> Hands:
    """A cleared run that waits: nobody has room."""
    hands = Hands(world)
    await hands.accept()
    await hands.announce(0)
    for family in FAMILIES:
        await world.scripts.verdict(answer(hands.run, family))
    return hands


@stage
async def _verdict_that_clears_to_the_gate(world: RedisWorld) -> Stage:
    made = await _verdicts(world, FAMILIES[:2], "persons", "pass", first=True)
    await made.hands.announce(0)
    return made


@stage
async def _announce(world: RedisWorld) -> Stage:
    hands = await _waiting(world)
    return Stage(hands, lambda s: s.announce(hands.p, "r2", 60_000, {POOL: 1}, 10), gated=True)


@stage
async def _announce_that_leaves(world: RedisWorld) -> Stage:
    hands = await _waiting(world)
    await hands.announce(1)
    return Stage(hands, lambda s: s.announce(hands.p, "r1", 0, {POOL: 0}, 10), gated=True)


@stage
async def _regate(world: RedisWorld) -> Stage:
    hands = await _waiting(world)
    await hands.announce(1)
    await hands.read(hands.lane, "router", "r1")
    await world.delete(hands.lane, await hands.field("entry"))
    return Stage(hands, lambda s: s.regate(hands.run), astray=True, gated=True)


@stage
async def _tenure(world: RedisWorld) -> Stage:
    hands = Hands(world)
    return Stage(hands, lambda s: s.tenure(hands.p))


@stage
async def _end_of_a_waiting_run(world: RedisWorld) -> Stage:
    hands = await _waiting(world)
    return Stage(hands, _end(hands, "state", "queued", "0-0"))


@stage
async def _end_that_lets_the_next_in(world: RedisWorld) -> Stage:
    hands, next = Hands(world), Hands(world)
    await next.accept()
    await hands.accept()
    await hands.announce(1)
    for family in FAMILIES:
        await world.scripts.verdict(answer(hands.run, family))
        await world.scripts.verdict(answer(next.run, family))
    (entry,) = await hands.read(hands.lane, "router", "r1")
    await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")
    return Stage(hands, _end(hands, "owner", "r1:a", "1-0"), hands.lane, "router", entry, gated=True)


# --- the test -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(_STAGES))
async def test_script_that_fails_at_any_call_can_be_repeated(name: str, valkey_cluster: str) -> None:
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        clean = await _prepared(world, name)
        await clean.act(world.scripts)
        wanted = await _whole(world, clean)
        for nth in range(1, _MOST_CALLS):
            made = await _prepared(world, name)
            if not await _fails(world, made, nth):
                assert nth > 1
                return
            await _nothing_forbidden(world, made, wanted)
            await made.act(world.scripts)
            assert await _whole(world, made) == wanted, f"call {nth}"
    raise AssertionError("the script never ran through")


async def test_take_that_fails_counts_no_start_that_did_not_happen(valkey_cluster: str) -> None:
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        for nth in range(1, _MOST_CALLS):
            await world.flush_all()
            hands, entry = await _read_entry(world)
            if not await _fails(world, Stage(hands, _take(hands, entry)), nth):
                return
            assert await world.starts(hands.requests, "rules") == {}
            assert len(await world.pending(hands.requests, "rules")) == 1
            assert (await world.scripts.take(hands.requests, "rules", "c2", 0, entry)).starts == 1
    raise AssertionError("the script never ran through")


async def test_verdict_that_fails_while_it_hands_over_loses_no_entry(valkey_cluster: str) -> None:
    """Asked again it gives the claim, or the entry is unread or pending as after any read whose reply was lost."""
    taker = Taker(consumer="r1", owner="r1:a", pool=POOL)
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        for nth in range(1, _MOST_CALLS):
            await world.flush_all()
            hands = Hands(world)
            await hands.accept()
            said = [answer(hands.run, family) for family in FAMILIES]
            failed = await _fails(world, Stage(hands, partial(verdicts, answers=said, taker=taker)), nth)
            handed = (await verdicts(world.scripts, said, taker)).handed
            held, entry = await world.pending(hands.lane, "router"), await hands.field("entry")
            assert entry in held or await world.unread(hands.lane, "router") == 1
            assert (await hands.state() == "running") == (handed is not None and handed.claim is not None)
            if not failed and handed is not None:
                return
    raise AssertionError("the script never ran through")


async def test_pull_that_fails_leaves_each_entry_unread_or_pending(valkey_cluster: str) -> None:
    async with open_world("valkey", lambda: valkey_cluster) as world:
        assert isinstance(world, RedisWorld)
        for nth in range(1, _MOST_CALLS):
            await world.flush_all()
            hands = Hands(world)
            await hands.accept()
            groups = await world.groups()
            for family in FAMILIES:
                await groups.ensure(hands.requests, family)
            wants = [Want(family, "c1", 10) for family in FAMILIES]
            puller = RedisPuller(Breaking(world.redis, nth), world.redis)
            failed = False
            try:
                said = (await puller.pull(hands.requests, wants)).rows
            except ServerError:
                failed, said = True, []
            for family in FAMILIES:
                pending = len(await world.pending(hands.requests, family))
                assert pending + await world.unread(hands.requests, family) == 1
            if not failed and all(isinstance(rows, list) and len(rows) == 1 for rows in said):
                return
    raise AssertionError("the script never ran through")


def test_every_script_is_prepared_here() -> None:
    scripts = {path.stem for path in Path(runtime.__file__).parent.glob("lua/*.lua")} - set(HEADS)
    here = {name.split("_")[0] for name in _STAGES}
    assert here == scripts - _READING - _DELIVERING


async def _prepared(world: RedisWorld, name: str) -> Stage:
    await world.flush_all()
    return await _STAGES[name](world)


async def _fails(world: RedisWorld, made: Stage, nth: int) -> bool:
    """Run it with the nth call broken; False when it did not come that far."""
    redis = Breaking(world.redis, nth)
    try:
        await made.act(RedisScripts(redis, RETENTION_MS))
    except ServerError:
        assert redis.reached
    return redis.reached  # flush tells it of the run alone


async def _nothing_forbidden(world: RedisWorld, made: Stage, wanted: str) -> None:
    if made.entry and made.entry not in await world.pending(made.stream, made.group):
        assert await _whole(world, made) == wanted, "acknowledged without its effect"
    hands = made.hands
    state = await hands.state()
    if state == "ended" and not await hands.field("deleted"):
        assert await hands.kinds() and await world.entries(hands.reply)
        assert await world.body(hands.run) is None and hands.run not in await world.live(hands.p)
        assert await world.expires(hands.hash) and await world.expires(hands.reply)
    if state == "queued" and not made.astray:
        assert await world.entries(hands.lane) or await _waits(world, hands)


async def _whole(world: RedisWorld, made: Stage) -> str:
    """Everything the server keeps of this run and its streams, with names instead of ids."""
    hands = made.hands
    if made.gated:
        await hands.announce()
    seen = await hands.snapshot()
    for stream, groups in ((hands.requests, FAMILIES), (hands.lane, ("router",))):
        for group in groups:
            if await _has_group(world, stream, group):
                seen[f"pending {stream} {group}"] = sorted((await world.pending(stream, group)).values())
                seen[f"starts {stream} {group}"] = sorted((await world.starts(stream, group)).values())
                seen[f"consumers {stream} {group}"] = await world.consumers(stream, group)
    seen["gate"] = [await world.redis.execute("EXISTS", f"{hands.p}:gate:{POOL}|{LANE}:{part}") for part in _PARTS]
    seen["requests"] = {fields[b"e"] for _, fields in await world.entries(hands.requests)}
    seen["dlq"] = {(f[b"entry"], f[b"reason"], f[b"run"]) for _, f in await world.entries(f"{hands.p}:dlq")}
    text = repr(sorted((key, repr(value)) for key, value in seen.items()))
    assert prefix_of(hands.run) == hands.p
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<run>", text).replace(
        made.entry or "<none>", "<entry>"
    )


async def _waits(world: RedisWorld, hands: Hands) -> bool:
    return await world.redis.execute("ZSCORE", f"{hands.p}:gate:{POOL}|{LANE}:waiting", hands.run) is not None


async def _has_group(world: RedisWorld, stream: str, group: str) -> bool:
    if not await world.redis.execute("EXISTS", stream):
        return False
    return group.encode() in [row[b"name"] for row in await world.redis.execute("XINFO", "GROUPS", stream)]
