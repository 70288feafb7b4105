"""Waiting for an engine until somebody cancels the run.

Only what runs inside `Interrupt.wait` is interrupted; a frame that is being stored is never cut in two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from base.alarm import Alarm

T = TypeVar("T")


class Stopped(Exception):
    """The run was cancelled, or is no longer ours."""


class Interrupt:
    """Use as `with` in the task that waits. `cancelled` is the lease's signal."""

    def __init__(self, cancelled: Alarm) -> None:
        self._cancelled = cancelled
        self._waiting = False
        self._struck = False
        self._error: Exception | None = None

    def __enter__(self) -> Interrupt:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelled.tell(self._strike)
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self._cancelled.forget(self._strike)

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, or Stopped as soon as the run is cancelled; `work` is cancelled with it."""
        if self._error is not None or self._cancelled.is_set():
            work.close()
            raise self._error or Stopped
        self._waiting = True
        try:
            return await work
        except asyncio.CancelledError:
            if self._struck and self._task.uncancel() == 0:
                raise (self._error or Stopped) from None
            raise
        finally:
            self._waiting = False

    def fail(self, error: Exception) -> None:
        """What waits, or will wait, ends with this error: something beside it has failed."""
        self._error = self._error or error
        self._strike()

    def _strike(self) -> None:
        if self._waiting and not self._struck:
            self._struck = True
            self._task.cancel()
