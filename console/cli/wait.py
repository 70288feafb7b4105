"""Waiting for something that another process does."""

from __future__ import annotations

import threading
from collections.abc import Callable

from base.clock import SystemClock

_PAUSE_S = 0.2


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Ask until it is so; False when it is not within `seconds`."""
    clock, pause = SystemClock(), threading.Event()
    deadline = clock.monotonic() + seconds
    while not done():
        if clock.monotonic() >= deadline:
            return False
        pause.wait(_PAUSE_S)
    return True
