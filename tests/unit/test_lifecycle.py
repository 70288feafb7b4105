"""The stop sequence: newest first, each step within its time, each told by the log."""

from __future__ import annotations

import asyncio

import pytest

from base import logs
from base.clock import SystemClock
from runtime.lifecycle import STOP, Stops


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What was logged."""
    caplog.set_level("INFO", logger=logs.ROOT)
    return caplog


async def test_what_was_opened_last_is_closed_first_and_the_log_tells_it(said: pytest.LogCaptureFixture) -> None:
    stops, closed = Stops(SystemClock()), list[str]()

    async def close(name: str) -> None:
        closed.append(name)

    for name in ("connections", "stages", "door"):
        stops.add(name, lambda name=name: close(name), 1.0)  # type: ignore[misc]
    await stops.run()
    assert closed == ["door", "stages", "connections"]
    assert said.messages == [STOP + name for name in closed]


async def test_a_step_that_hangs_or_fails_is_said_and_keeps_no_other_from_its_turn(
    said: pytest.LogCaptureFixture,
) -> None:
    stops, closed = Stops(SystemClock()), list[str]()

    async def well() -> None:
        closed.append("well")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise OSError("gone")

    for name, step in (("last", well), ("hangs", hang), ("fails", fail), ("first", well)):
        stops.add(name, step, 0.05)
    await stops.run()
    assert closed == ["well", "well"]
    assert [(record.levelname, record.getMessage()) for record in said.records] == [
        ("INFO", "stop: first"),
        ("ERROR", "a step of the stop failed"),
        ("WARNING", "left behind at the stop"),
        ("INFO", "stop: last"),
    ]
