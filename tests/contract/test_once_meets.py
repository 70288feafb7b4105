"""What an Idempotency-Key means together with everything else that can happen to a run: policies of leaving, lost
replies, failovers, routers that take over, readers who come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from runtime import repeats
from runtime.acceptance import Acceptance, Accepted, Repeat
from runtime.names import prefix, push_channel
from runtime.scripts import Scripts
from schemas.errors import Refusal, Unavailable
from schemas.events import RequestCancelled, RequestCompleted, Usage
from schemas.frames import DATA, END, ERROR, OWNER, encode_failure
from schemas.ports import Mark, Once, Watch
from tests.engine_support import seals
from tests.once_support import BROKEN, OURS, Place, make_place, read
from tests.run_support import FAMILIES, PARTITIONS, Hands, World, answer, open_gates, store_frame, until

ROTATED = Once(marks=(Mark("new name", "new asked"), *OURS.marks), spread=2, tenant="org")


class Unheard:
    """The scripts of a world, whose next acceptance is carried out but not answered."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts, self.loses = scripts, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scripts, name)

    async def accept_once(self, new: Acceptance, repeat: Repeat) -> Accepted:
        """Unavailable instead of what it was."""
        said = await self._scripts.accept_once(new, repeat)
        if self.loses:
            self.loses = False
            raise Unavailable("the reply was lost")
        return said


@pytest.fixture
def unheard(world: World) -> Unheard:
    """Between the door and its server."""
    return Unheard(world.scripts)


@pytest_asyncio.fixture
async def place(world: World, unheard: Unheard) -> AsyncIterator[Place]:
    """A door in a world where nobody has asked before; it hears pushes."""
    made = make_place(world, cast(Scripts, unheard))
    await open_gates(world.scripts)
    channels = [push_channel(prefix(n), "door") for n in range(PARTITIONS)]
    await world.push.listen(channels, made.door.hub.hear, made.door.hub.missed)
    yield made


async def _watchers(place: Place, run: str) -> int:
    return len((await Hands(place.world, run).field("watchers")).split())


# --- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("once", [OURS, ROTATED], ids=["same id", "another id"])
@pytest.mark.parametrize("policy", ["finish", "grace:30"])
async def test_run_that_waits_for_its_client_is_not_ended_by_a_repeat_that_got_no_answer(
    place: Place, unheard: Unheard, policy: str, once: Once
) -> None:
    """The repeat was told 503; the run is that of the request before it, and follows its own policy."""
    first = await place.ask(on_disconnect=policy)
    hands = await place.run(first)
    await first.leave()
    unheard.loses = True
    with pytest.raises(Unavailable):
        await place.ask(once)
    await until(lambda: _nobody_watches(place, first.run))
    assert (await hands.state(), await hands.field("cancel")) == ("running", "")
    again = await place.ask(once)
    assert (again.replayed, again.run) == (True, first.run)


async def _nobody_watches(place: Place, run: str) -> bool:
    await asyncio.gather(*place.door._side)
    return await _watchers(place, run) == 0


async def test_run_whose_own_request_got_no_answer_is_ended_and_its_key_is_free(place: Place, unheard: Unheard) -> None:
    unheard.loses = True
    with pytest.raises(Unavailable):
        await place.ask(on_disconnect="finish")
    await until(lambda: _free(place))
    again = await place.ask()
    assert not again.replayed and await Hands(place.world, again.run).state() == "checking"


async def _free(place: Place) -> bool:
    await asyncio.gather(*place.door._side)
    return await place.world.live(prefix(2)) == {}


async def test_repeat_of_a_run_that_is_being_cancelled_waits_and_is_the_next_life(place: Place) -> None:
    first = await place.ask()
    await place.run(first)
    await first.leave()  # its owner is told, and has not stopped yet
    again = asyncio.create_task(place.ask())
    await asyncio.sleep(0.02)
    await place.end(first, 0, RequestCancelled(run=first.run, by="client"), ERROR, encode_failure(BROKEN))
    watch = await asyncio.wait_for(again, 10)
    assert not watch.replayed and watch.run != first.run and place.door.hub.live == 1


async def test_repeat_of_a_run_whose_cancel_nobody_hears_may_be_sent_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "_ENDING_S", (0.005, 0.02))
    first = await place.ask()
    await place.run(first)
    await first.leave()
    with pytest.raises(Unavailable, match="is being cancelled"):
        await place.ask()
    assert (place.door.hub.live, await _watchers(place, first.run)) == (0, 0)


async def test_run_left_unchecked_under_a_policy_to_cancel_is_not_joined(place: Place) -> None:
    """Authorization said `cancel` when nobody watched: whoever claims it stops at once, so nobody may wait for it."""
    first = await place.ask()
    await first.leave()
    await place.world.scripts.verdict(answer(first.run, "authorization"))
    assert await Hands(place.world, first.run).field("cancel") == "client"
    again = asyncio.create_task(place.ask())
    await asyncio.sleep(0.02)
    assert not again.done()
    await place.door.cancel(first.run, "client")  # as the sweeper would
    watch = await asyncio.wait_for(again, 10)
    assert not watch.replayed and watch.run != first.run


# --- failovers --------------------------------------------------------------------------------------------------------


async def test_client_that_joined_a_run_which_was_lost_is_told_to_send_it_again(place: Place) -> None:
    replica = await place.world.replica()
    first, second = await place.ask(), await place.ask()
    assert second.replayed
    await place.world.promote(replica)
    place.door.hub.missed()
    for watch in (first, second):
        with pytest.raises(Refusal) as told:
            await watch.next(20.0)
        assert told.value.failure.code == "store_unavailable"


@pytest.mark.parametrize("seen", [0, 1])
async def test_repeat_after_a_failover_that_lost_the_key_gets_a_whole_answer_and_nobody_gets_two(
    place: Place, seen: int
) -> None:
    """The run is begun anew under its own id. Who had words of the first ends; who had none gets the second whole."""
    replica = await place.world.replica()
    first = await place.ask()
    await _claim(place, first, "r1:a")
    await _say(place, first, "r1:a", 1, 1, b"data: first\n\n")
    for _ in range(seen):
        assert await first.next(20.0) is not None
    await place.world.promote(replica)
    await open_gates(place.world.scripts)
    again = await place.ask()
    assert not again.replayed and again.run == first.run
    await _claim(place, again, "r2:b")
    for last in (1, 2):
        await _say(place, again, "r2:b", 1, last, b"data: second\n\n")
    await _end(place, again, "r2:b", 1, 3)
    place.door.hub.missed()
    assert [frame.payload for frame in await read(again)] == [b"data: second\n\n"] * 2 + [b"data: [DONE]\n\n"]
    if seen:
        with pytest.raises(Refusal) as told:
            await first.next(20.0)
        assert told.value.failure.code == "upstream_interrupted"
    else:
        assert len(await read(first)) == 3


# --- take-over, archive, reading on -----------------------------------------------------------------------------------


async def test_answer_of_two_owners_is_the_same_live_joined_archived_and_read_on(place: Place) -> None:
    """A second router continued it: frames of two epochs, each naming its owner."""
    first = await place.ask()
    hands = await _claim(place, first, "r1:a")
    await _say(place, first, "r1:a", 1, 1, b"data: one\n\n")
    await _say(place, first, "r1:a", 1, 2, b"data: two\n\n")
    (entry,) = await place.world.pending(hands.lane, "router")
    assert (await place.world.scripts.take(hands.lane, "router", "r2", 0, entry)).state == "taken"
    assert (await place.world.scripts.claim(first.run, hands.lane, entry, "r2", "r2:b")).epoch == 2
    joined = await place.ask()
    await _say(place, first, "r2:b", 2, 3, b"data: three\n\n")
    await _end(place, first, "r2:b", 2, 4)
    live = await read(first)
    assert [(frame.epoch, frame.sequence) for frame in live] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert await read(joined) == live
    await place.keep(first)
    await place.lose_frames(first)
    assert await read(await place.ask()) == live
    kept = await place.archive.find("org", first.run, 0)
    assert kept is not None
    for after in range(4):
        assert await read(place.door.replay(kept, after)) == live[after:]


async def _claim(place: Place, watch: Watch, owner: str) -> Hands:
    hands, router = Hands(place.world, watch.run), owner.partition(":")[0]
    for family in FAMILIES:
        await place.world.scripts.verdict(answer(watch.run, family))
    (entry,) = await hands.read(hands.lane, "router", router)
    assert (await place.world.scripts.claim(watch.run, hands.lane, entry, router, owner)).state == "ok"
    return hands


async def _say(place: Place, watch: Watch, owner: str, epoch: int, last: int, text: bytes) -> None:
    named = {OWNER: owner.partition(":")[2]}
    frame = seals("router").frame(watch.run, epoch, last, DATA, 1, text, named)
    assert await store_frame(place.world.scripts, watch.run, owner, last, frame, epoch=epoch) == "ok"


async def _end(place: Place, watch: Watch, owner: str, epoch: int, last: int) -> None:
    named = {OWNER: owner.partition(":")[2]}
    frame = seals("router").frame(watch.run, epoch, last, END, 1, b"data: [DONE]\n\n", named)
    ending = seals("router").ending(RequestCompleted(run=watch.run, model="m", endpoint="e", usage=Usage()), epoch)
    place_ = f"{epoch}-{last - 1}"
    assert await place.world.scripts.end(watch.run, "owner", owner, place_, frame, ending) == "ok"
