"""Several processes of the same rooms under one parent that has no loop and no thread: `headrace start --workers N`.

SIGTERM, SIGINT and SIGHUP go to all of them as SIGTERM, and the parent ends when the last has stopped in order. One
that is killed or crashes is started again after a pause; one that was drained (exit code 0) is not. One that cannot
start (exit code 2) ends all: its log line says why, and whoever started the parent decides.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from base.ids import Random
from console import forks
from console.embedded import processes
from console.stack import Say
from console.supervisor import Signals

CANNOT_START = 2
_PAUSE_S = (0.5, 1.0)  # before a process is started again, jittered
_TICK_S = 5.0


class Replicas:
    """`work(number)` in so many processes, numbered from 0, until they are told to stop."""

    def __init__(self, work: Callable[[int], None], signals: Signals, chance: Random, say: Say) -> None:
        self._work, self._signals, self._chance, self._say = work, signals, chance, say
        self._running: dict[int, processes.Identity] = {}
        self._failed = False

    def run(self, count: int) -> int:
        """The exit code: 0, or 2 when a process could not start."""
        forks.freeze()
        for number in range(count):
            self._start(number)
        told = False
        while self._running:
            if (self._signals.asked or self._failed) and not told:
                told = True
                self._tell()
            self._signals.wait(_TICK_S)
            for number, known in list(self._running.items()):
                self._look_after(number, known)
        return CANNOT_START if self._failed else 0

    def _start(self, number: int) -> None:
        pid = forks.fork(lambda: self._work(number), log=None, closing=self._signals.descriptors)
        self._running[number] = forks.identity(pid)

    def _tell(self) -> None:
        for known in self._running.values():
            processes.send(known, signal.SIGTERM)

    def _look_after(self, number: int, known: processes.Identity) -> None:
        status = processes.end_of(known)
        if status is None:
            return
        del self._running[number]
        self._failed = self._failed or status == CANNOT_START
        if status == 0 or self._failed or self._signals.asked:
            return
        self._say(f"process {known.pid} ended unexpectedly: starting it again")
        self._signals.wait(self._chance.uniform(*_PAUSE_S))
        if not self._signals.asked:
            self._start(number)
