"""An engine's stream into frames: what happens while a frame is under way, and when it is not stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from providers.errors import Broken
from providers.fake import Cut, Delay, FakeTransport, Hang, Head, Piece, Script
from providers.openai_openai import ChatStream
from providers.ports import Timeouts
from schemas.errors import OwnerLost
from schemas.ports import Stored
from tests.router_support import CLOCK, MemoryLease, chunk, cleared_run, endpoint, sse, until
from tests.unit.test_router_handler import Stage
from workers.router.interrupt import Interrupt, Stopped
from workers.router.relay import Pace, Relay

WORDS = [f"w{number}" for number in range(12)]


class Moody(MemoryLease):
    """Answers offers when it is told to, the first ones at once; `refuses`: what it says is that nothing was stored."""

    __slots__ = ("again", "asked", "ready", "refuses")

    def mood(self, ready: int) -> Moody:
        self.asked: list[Callable[[], None]] = []
        self.ready, self.refuses, self.again = ready, False, 0
        return self

    def offer(
        self, payload: bytes, events: int, told: Stored, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        def answer() -> None:
            if not self.refuses:
                self._write("data", payload, events, headers)
            told(not self.refuses)

        if len(self.sent) < self.ready:
            asyncio.get_running_loop().call_soon(answer)
        else:
            self.asked.append(answer)

    async def flush(
        self, payload: bytes, events: int, headers: Mapping[str, str] | None = None, *, said: int = 0
    ) -> None:
        self.again += self.refuses
        await MemoryLease.flush(self, payload, events, headers, said=said)


def moody(ready: int = 2) -> Moody:
    """ready: how many frames it stores without being told to."""
    lease = cleared_run()
    return Moody(lease.accepted, lease.body, lease.verdicts).mood(ready)


def words(count: int, gap: float = 0.0) -> Script:
    pieces = [Piece(sse(chunk(word))) for word in WORDS[:count]]
    return [Head(), *(step for piece in pieces for step in (piece, Delay(gap)))]


async def pumping(lease: MemoryLease, script: Script) -> Relay:
    relay = Relay(lease, ChatStream("public", False), {}, Pace(0.0, 0.0), CLOCK, lambda: None)
    response = await FakeTransport([script], CLOCK).open("http://e/", {}, b"", Timeouts())
    with Interrupt(lease.cancelled) as interrupt:
        await relay.pump(response, interrupt)
    return relay


async def test_what_comes_while_a_frame_is_under_way_goes_out_together_behind_it() -> None:
    lease = moody()
    task = asyncio.create_task(pumping(lease, [*words(6, 0.001), Hang()]))
    await until(lambda: len(lease.asked) == 1)
    await CLOCK.sleep(0.05)
    assert [one.events for one in lease.sent] == [1, 1] and len(lease.asked) == 1
    lease.asked.pop()()
    await until(lambda: len(lease.asked) == 1)
    lease.asked.pop()()
    assert [one.events for one in lease.sent] == [1, 1, 1, 3]
    lease.cancelled.set()
    with pytest.raises(Stopped):
        await task


async def test_the_end_of_the_stream_waits_for_the_frame_under_way() -> None:
    lease = moody()
    script = [*words(4, 0.001), Piece(sse(chunk(finish="stop"), "[DONE]"))]
    task = asyncio.create_task(pumping(lease, script))
    await until(lambda: len(lease.asked) == 1)
    await CLOCK.sleep(0.02)
    assert not task.done()
    lease.asked.pop()()
    relay = await task
    assert [one.events for one in lease.sent] == [1, 1, 1] and relay.rest()[1] == 2


async def test_a_frame_that_was_not_stored_is_sent_again_and_nothing_overtakes_it() -> None:
    lease = moody()
    lease.refuses = True
    task = asyncio.create_task(pumping(lease, [*words(8, 0.001), Cut()]))
    while not task.done():
        if lease.asked:
            lease.asked.pop()()
        await CLOCK.sleep(0.002)
    with pytest.raises(Broken):
        await task
    text = b"".join(one.payload for one in lease.sent)
    found = [word for word in WORDS if b'"%b"' % word.encode() in text]
    assert lease.again > 0 and found == WORDS[: len(found)] and len(found) >= 4
    assert text.index(b'"w2"') < text.index(b'"w3"')


async def test_a_run_that_another_took_meanwhile_ends_the_call_while_the_engine_is_silent() -> None:
    lease = moody()
    task = asyncio.create_task(pumping(lease, [*words(3, 0.001), Hang()]))
    await until(lambda: len(lease.asked) == 1)
    lease.lost = lease.refuses = True
    lease.asked.pop()()
    with pytest.raises(OwnerLost):
        await asyncio.wait_for(task, 5)


async def test_a_router_that_stops_lets_go_of_the_frame_under_way() -> None:
    lease = moody()
    task = asyncio.create_task(pumping(lease, [*words(5, 0.001), Hang()]))
    await until(lambda: len(lease.asked) == 1)
    answer = lease.asked.pop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lease.refuses = True
    answer()
    await CLOCK.sleep(0.02)
    assert lease.asked == [] and lease.again == 0


async def test_no_other_engine_is_asked_while_the_first_words_are_under_way() -> None:
    lease, stage = moody(0), Stage([*words(1), Cut()], words(2), endpoints=[endpoint("a"), endpoint("b")])
    task = asyncio.create_task(stage.run(lease))
    await until(lambda: len(lease.asked) == 1)
    await CLOCK.sleep(0.02)
    assert len(stage.transport.calls) == 1 and not task.done()
    lease.asked.pop()()
    await task
    assert len(stage.transport.calls) == 1 and [one.kind for one in lease.sent] == ["data", "error"]
    assert lease.sent[0].headers and b'"w0"' in lease.sent[0].payload


async def test_first_words_that_were_not_stored_are_sent_again_with_the_headers_of_the_answer() -> None:
    lease = moody(0)
    lease.refuses = True
    task = asyncio.create_task(Stage([*words(1), Hang()]).run(lease))
    await until(lambda: len(lease.asked) == 1)
    lease.asked.pop()()
    await until(lambda: len(lease.sent) == 1)
    assert lease.again == 1 and lease.sent[0].headers
    lease.cancelled.set()
    await task


# --- how often -------------------------------------------------------------------------------------------------------


def paced(least: float, most: float, frames: int, took: float = 0.001) -> Pace:
    """After a second in which so many frames were stored."""
    pace = Pace(least, most)
    for number in range(frames):
        pace.note(took, 100 + number / frames)
    return pace


def test_frames_come_further_apart_under_load_and_rounds_never_further_than_the_bound() -> None:
    assert (paced(0.010, 0.025, 10).gap, paced(0.010, 0.025, 10).every()) == (0.010, 0.0125)
    assert paced(0.010, 0.025, 50_000).gap == pytest.approx(0.020)
    assert paced(0.010, 0.025, 50_000).every() == pytest.approx(0.025)
    assert paced(0.010, 0.025, 100, took=1.0).every() == pytest.approx(0.025)


def test_a_pace_forgets_a_load_with_the_next_frames() -> None:
    pace = paced(0.010, 0.025, 50_000)
    for second in range(200, 210):
        pace.note(0.001, second)
    assert pace.gap == 0.010


def test_there_are_no_rounds_where_they_would_hold_an_event_too_long() -> None:
    assert paced(0.025, 0.025, 10).every() == 0.0
    assert paced(0.030, 0.020, 10).every() == 0.0
    assert paced(0.0, 0.0, 10).every() == 0.0
