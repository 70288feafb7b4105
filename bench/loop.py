"""The event loop of the benchmark's programs: uvloop where it is installed, else asyncio's own."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """Run a program to its result, with rare garbage collections so that none of them shows as a delay."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    with asyncio.Runner(loop_factory=factory()) as runner:
        return runner.run(main)


def factory() -> Any:
    """What makes the loop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
