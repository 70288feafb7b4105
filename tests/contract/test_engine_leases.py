"""Claimed runs in a router's hands, and a whole run from the door to its fact, over both implementations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from runtime.claims import Claim
from runtime.door import Bounds, StreamDoor
from runtime.names import push_channel
from schemas.errors import Code, Failure, OwnerLost, Refusal
from schemas.events import RequestCompleted, RequestFailed, Usage
from schemas.frames import END, ERROR, OWNER, decode_failure
from schemas.outcomes import Decided, Delivery, Outcome
from schemas.ports import NewRun, RunLease, Watch
from schemas.verdicts import PASS, REFUSE, Grant, Verdict
from tests.engine_support import FACTS, FORGER, LANE_KEY, House, P, request, seals
from tests.run_support import CHANCE, CLOCK, FAMILIES, LANE, POOL, MemoryWorld, RedisWorld, World, answer, until


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


async def _cleared(house: House) -> str:
    """A run that every family let pass."""
    run = await house.accept()
    for family in FAMILIES:
        await house.world.scripts.verdict(answer(run, family))
    return run


def _completed(lease: RunLease) -> RequestCompleted:
    return RequestCompleted(run=lease.run, model="m", endpoint="e", usage=Usage(prompt_tokens=1))


async def test_lease_carries_what_was_accepted_and_decided(world: World, house: House) -> None:
    leases: list[RunLease] = []

    async def serve(lease: RunLease) -> None:
        leases.append(lease)
        await lease.flush(b"data: a\n\n", 1, {"x": "y"})
        await lease.end(END, b"data: [DONE]\n\n", 1, _completed(lease))

    run = await _cleared(house)
    await house.router(serve)
    await until(lambda: _outcome(world, run, "completed"))
    (lease,) = leases
    assert (lease.run, lease.epoch, lease.body, lease.accepted.model) == (run, 1, b"{}", "m")
    assert set(lease.verdicts) == set(FAMILIES) and 0 < lease.deadline_s <= 60
    assert await world.entries(LANE_KEY) == [] and await world.pending(LANE_KEY, "router") == {}
    frames = await world.runs.frames(run, 0, 0, 10)
    opened = seals("ingress").open_frame(run, 1, 1, "data", 1, frames[0].payload, frames[0].headers)
    assert opened.payload == b"data: a\n\n" and opened.headers.keys() == {"x", OWNER} and opened.headers["x"] == "y"
    assert frames[0].payload != opened.payload


async def _outcome(world: World, run: str, outcome: str) -> bool:
    return (await world.runs.fields(run)).get("outcome") == outcome.encode()


async def test_handler_that_raises_claims_again_under_a_new_epoch(world: World, house: House) -> None:
    epochs: list[int] = []

    async def serve(lease: RunLease) -> None:
        epochs.append(lease.epoch)
        if len(epochs) == 1:
            raise RuntimeError("once")
        await lease.end(END, b"ok", 1, _completed(lease))

    run = await _cleared(house)
    await house.router(serve)
    await until(lambda: _outcome(world, run, "completed"))
    assert epochs == [1, 2]


async def test_run_of_a_crashed_router_goes_on_elsewhere_and_its_return_writes_nothing(
    world: World, house: House
) -> None:
    """The first router keeps running but is never heard of (as after a network split); the second owns the run."""
    old: list[RunLease] = []

    async def stuck(lease: RunLease) -> None:
        await lease.flush(b"data: a\n\n", 1)
        old.append(lease)
        await asyncio.Event().wait()

    async def serve(lease: RunLease) -> None:
        assert (lease.epoch, lease.sequence) == (2, 1)
        await lease.end(ERROR, b"{}", 1, RequestFailed(run=lease.run, failure=Failure(code="x", message="y")))

    run = await _cleared(house)
    first = await house.router(stuck, "r1")
    await until(lambda: old)
    await house.crash(first)
    await house.router(serve, "r2")
    await until(lambda: _outcome(world, run, "failed"))
    before = await world.entries(FACTS)
    with pytest.raises(OwnerLost):
        await old[0].flush(b"data: b\n\n", 1)
    with pytest.raises(OwnerLost):
        await old[0].end(END, b"x", 1, _completed(old[0]))
    assert await world.entries(FACTS) == before and len(before) == 1


async def test_lost_run_stops_its_handler_by_the_beat(world: World, house: House) -> None:
    told = asyncio.Event()
    lost: list[str] = []

    async def serve(lease: RunLease) -> None:
        await lease.cancelled.wait()
        with pytest.raises(OwnerLost):
            await lease.flush(b"data: a\n\n", 1)
        lost.append(lease.run)
        told.set()
        raise OwnerLost("told")

    run = await _cleared(house)
    await house.router(serve, idle_ms=600)
    await until(lambda: world.pending(LANE_KEY, "router"))
    (entry,) = await world.pending(LANE_KEY, "router")
    await until(lambda: _running(world, run))
    await world.scripts.take(LANE_KEY, "router", "thief", 0, entry)
    await world.scripts.claim(run, LANE_KEY, entry, "thief", "thief:x")
    await asyncio.wait_for(told.wait(), 20)
    assert lost == [run] and (await world.runs.fields(run))["owner"] == b"thief:x"


async def _running(world: World, run: str) -> bool:
    return (await world.runs.fields(run))["state"] == b"running"


async def test_cancel_reaches_the_lease(world: World, house: House) -> None:
    async def serve(lease: RunLease) -> None:
        await lease.cancelled.wait()
        await lease.end(ERROR, b"{}", 1, RequestFailed(run=lease.run, failure=Failure(code="x", message="y")))

    run = await _cleared(house)
    await house.router(serve)
    await until(lambda: _running(world, run))
    assert await world.scripts.cancel(run, "client") == "flagged"
    await until(lambda: _outcome(world, run, "failed"))


async def test_cancel_that_overtakes_the_answer_of_the_claim_is_heard(
    world: World, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[bool] = []

    async def serve(lease: RunLease) -> None:
        cancelled.append(lease.cancelled.is_set())
        await lease.end(END, b"x", 1, _completed(lease))

    claim = world.scripts.claim

    async def overtaken(run: str, *rest: str) -> Claim:
        found = await claim(run, *rest)
        house.leases.hear(f"cancel {run}".encode())
        return found

    monkeypatch.setattr(world.scripts, "claim", overtaken)
    await _cleared(house)
    await house.router(serve)
    await until(lambda: cancelled)
    assert cancelled == [True]


async def test_run_cancelled_before_its_take_over_starts_cancelled(world: World, house: House) -> None:
    cancelled: list[bool] = []

    async def serve(lease: RunLease) -> None:
        cancelled.append(lease.cancelled.is_set())
        await lease.end(END, b"x", 1, _completed(lease))

    run = await _cleared(house)
    (entry,) = await house.ghost("router", [LANE_KEY])
    await world.scripts.claim(run, LANE_KEY, entry, "ghost", "ghost:x")
    await world.scripts.cancel(run, "client")
    await house.router(serve)
    await until(lambda: cancelled)
    assert cancelled == [True]


async def test_body_that_does_not_open_is_dead_and_the_run_ends(world: World, house: House) -> None:
    async def serve(lease: RunLease) -> None:
        raise AssertionError("never called")

    run = await _cleared(house)
    await _spoil_body(world, run)
    await house.router(serve)
    await until(lambda: _outcome(world, run, "failed"))
    assert (await house.reasons())[0].startswith("the body does not open")


async def test_run_whose_acceptance_was_forged_is_dead_and_serves_nobody(world: World, house: House) -> None:
    async def serve(lease: RunLease) -> None:
        raise AssertionError("never called")

    run = await house.accept(FORGER)
    for family in FAMILIES:
        await world.scripts.verdict(answer(run, family))
    await house.router(serve)
    await until(lambda: _outcome(world, run, "failed"))
    assert (await house.reasons())[0].startswith("the acceptance does not hold")


async def _spoil_body(world: World, run: str) -> None:
    """Another run's sealed body under this run's name."""
    wrong = seals("ingress").body("another", b"{}")
    if isinstance(world, MemoryWorld):
        world.server.bodies[f"{P}:body:{run}"] = wrong
    elif isinstance(world, RedisWorld):
        await world.redis.execute("SET", f"{P}:body:{run}", wrong)


# --- the whole corridor -----------------------------------------------------------------------------------------------


async def _door(world: World) -> StreamDoor:
    door = StreamDoor("door", 4, world.scripts, world.runs, seals("ingress"), CLOCK, CHANCE, Bounds())
    channels = [push_channel(P, "door")]
    await world.push.listen(channels, door.hub.hear, door.hub.missed)
    return door


def _family(name: str, outcome: str = PASS) -> object:
    async def judge(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        return [_verdict(name, outcome, delivery) for delivery in deliveries]

    return judge


def _verdict(name: str, outcome: str, delivery: Delivery) -> Outcome:
    grant = Grant(tenant="org", key_id="k1", pool=POOL, lane=LANE) if name == "authorization" else None
    failure = Failure(code=Code.content_policy_violation, message="no") if outcome == REFUSE else None
    return Decided(
        Verdict(
            run=delivery.run,
            family=name,
            outcome=outcome,
            policy="p1",
            body_digest=delivery.event.body_digest,
            grant=grant,
            failure=failure,
        )
    )


async def _ask(door: StreamDoor) -> Watch:
    """A run of the partition that the engines read."""
    run = door.mint()
    while run[15:18] != "001":
        run = door.mint()
    return await door.accept(NewRun(accepted=request(run), body=b"{}", deadline_ms=60_000))


async def _answer(watch: Watch) -> list[tuple[str, int, bytes]]:
    """Frames until the last one."""
    got: list[tuple[str, int, bytes]] = []
    while not got or got[-1][0] == "data":
        frame = await watch.next(20.0)
        assert frame is not None
        got.append((frame.kind, frame.sequence, frame.payload))
    return got


async def test_request_passes_through_every_room_and_its_frames_arrive_in_order(world: World, house: House) -> None:
    async def serve(lease: RunLease) -> None:
        for number in range(5):
            await lease.flush(f"data: {number}\n\n".encode(), 1)
        await lease.end(END, b"data: [DONE]\n\n", 1, _completed(lease))

    for family in FAMILIES:
        await house.engine(_family(family), group=family)
    await house.router(serve)
    door = await _door(world)
    watches = [await _ask(door) for _ in range(4)]
    for watch in watches:
        got = await _answer(watch)
        assert [sequence for _, sequence, _ in got] == [1, 2, 3, 4, 5, 6]
        assert got[0] == ("data", 1, b"data: 0\n\n") and got[-1] == ("end", 6, b"data: [DONE]\n\n")
        assert await watch.next(0.0) is None
    assert door.hub.live == 0
    await until(lambda: house.settled("authorization"))
    assert len(await world.entries(FACTS)) == 4
    assert await world.live(P) == {} and await world.kept_bytes(P) == 0


async def test_refused_run_never_reaches_a_router(world: World, house: House) -> None:
    served: list[str] = []

    async def serve(lease: RunLease) -> None:
        served.append(lease.run)

    for family in FAMILIES:
        await house.engine(_family(family, REFUSE if family == "rules" else PASS), group=family)
    await house.router(serve)
    watch = await _ask(await _door(world))
    ((kind, sequence, payload),) = await _answer(watch)
    assert (kind, sequence, decode_failure(payload).code) == ("error", 1, "content_policy_violation")
    assert served == [] and await world.entries(LANE_KEY) == []


async def test_dead_letter_of_a_family_answers_the_client(world: World, house: House) -> None:
    async def broken(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        raise RuntimeError("a fault in a scanner")

    await house.engine(broken, group="rules", max_starts=1)
    watch = await _ask(await _door(world))
    ((kind, _, payload),) = await _answer(watch)
    assert kind == "error" and decode_failure(payload).code == "internal_error"


async def test_bound_of_live_runs_is_told_with_a_time_to_come_back(world: World) -> None:
    door = StreamDoor("door", 4, world.scripts, world.runs, seals("ingress"), CLOCK, CHANCE, Bounds(most_runs=0))
    with pytest.raises(Refusal) as caught:
        await _ask(door)
    assert caught.value.failure.code == "overloaded" and (caught.value.failure.retry_after_ms or 0) > 0
    assert door.hub.live == 0
