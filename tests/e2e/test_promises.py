"""Short forms of what scripts/promises plays at length."""

from __future__ import annotations

from bench import rolling
from tests.checks_support import load_script
from tests.e2e.house import Engine, House

promises = load_script("promises")


def test_a_process_of_every_kind_that_is_stopped_fails_no_open_stream(house: House, mock: Engine) -> None:
    """One process with all rooms of the corridor: its door and its router finish, its groups give back."""
    size = rolling.QUICK
    mock.set(itl_ms=size.itl_ms)
    try:
        row = promises.restart(house, mock, [kind for kind in rolling.KINDS if kind != "persons"], size)
    finally:
        mock.set(itl_ms=0)
    assert row.broken() == []
