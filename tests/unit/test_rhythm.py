"""Loops of one process look around together."""

from __future__ import annotations

import asyncio

import pytest

from base.ids import SystemRandom
from runtime.rhythm import BEAT_S, Rhythm


class Bells:
    """A clock whose sleepers wake when its hands pass their time."""

    def __init__(self) -> None:
        self.now, self.sleepers = 1_000.0, list[tuple[float, asyncio.Event]]()

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleepers.append((self.now + seconds, bell := asyncio.Event()))
        await bell.wait()

    async def ring(self) -> float:
        """Move to the next time that somebody waits for, and let all work; how long it was."""
        await turns()
        before, self.now = self.now, min(at for at, _ in self.sleepers)
        due, self.sleepers = self.sleepers, [(at, bell) for at, bell in self.sleepers if at > self.now]
        for at, bell in due:
            if at <= self.now:
                bell.set()
        await turns()
        return self.now - before


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_loops_with_periods_of_their_own_share_every_wake_up_of_the_slower_one() -> None:
    clock = Bells()
    rhythm, woken = Rhythm(clock, SystemRandom()), dict[float, list[float]]()

    async def loop(period: float) -> None:
        while True:
            await rhythm.rest(period)
            woken.setdefault(period, []).append(clock.now)

    periods = (BEAT_S, 2 * BEAT_S, 0.2, 1.5)
    loops = [asyncio.create_task(loop(period)) for period in periods]
    for _ in range(40):
        assert await clock.ring() <= BEAT_S * 1.11
        moments = [round(at, 6) for at, _ in clock.sleepers]
        assert len(moments) == len(set(moments)), "one sleep a moment, not one a loop"
    assert woken[0.2] == woken[BEAT_S] and len(woken[0.2]) == 40
    assert set(woken[1.5]) <= set(woken[2 * BEAT_S]) <= set(woken[BEAT_S])
    assert len(woken[1.5]) >= 3 and len(woken[2 * BEAT_S]) >= 19
    for task in loops:
        task.cancel()
    rhythm.close()
    await asyncio.gather(*loops, return_exceptions=True)
    await turns()
    assert len(asyncio.all_tasks()) == 1


async def test_a_loop_that_is_cancelled_takes_nobody_s_sleep_away() -> None:
    clock = Bells()
    rhythm = Rhythm(clock, SystemRandom())
    one, other = (asyncio.create_task(rhythm.rest(1.5)) for _ in range(2))
    await turns()
    one.cancel()
    await clock.ring()
    assert one.cancelled() and other.done() and not other.cancelled()


@pytest.mark.parametrize("early_s", [0.0, 0.0009])
async def test_a_timer_that_rings_a_little_early_does_not_ring_twice(early_s: float) -> None:
    clock = Bells()
    rhythm = Rhythm(clock, SystemRandom())
    first = asyncio.create_task(rhythm.rest(BEAT_S))
    await clock.ring()
    await first
    clock.now -= early_s
    again = asyncio.create_task(rhythm.rest(BEAT_S))
    assert await clock.ring() >= BEAT_S * 0.9
    await again


async def test_a_period_shorter_than_a_beat_is_kept_as_it_is() -> None:
    clock = Bells()
    task = asyncio.create_task(Rhythm(clock, SystemRandom()).rest(0.02))
    assert await clock.ring() == pytest.approx(0.02)
    await task
