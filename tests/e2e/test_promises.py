"""Short forms of what scripts/promises plays at length."""

from __future__ import annotations

import asyncio

from bench import rolling, rolling_play
from tests.e2e.house import Engine, House


def test_a_process_of_every_kind_that_is_stopped_fails_no_open_stream(house: House, mock: Engine) -> None:
    """One process with all rooms of the corridor: its door and its router finish, its groups give back. Meanwhile its
    /readyz says 503, and its log tells the stop sequence in the order that is written down."""
    size = rolling.QUICK
    mock.set(itl_ms=size.itl_ms)
    try:
        kinds = [kind for kind in rolling.KINDS if kind != "persons"]
        row = asyncio.run(rolling_play.restart(house, mock, kinds, size, "mock"))
    finally:
        mock.set(itl_ms=0)
    assert row.broken() == []
