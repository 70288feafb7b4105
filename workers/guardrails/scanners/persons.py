"""The parent's side of the family persons: one child process, fed in micro-batches, replaced when it dies or hangs.

`find` may be called by many tasks at once; their texts travel together, up to `batch` of them or after `wait`
seconds. A batch that fails is tried once more with a fresh child, then its callers get `ScannerUnavailable`; a caller
that has given up (its own timeout) takes its texts out of the queue. The child is started by `start`, which waits for
its model, or by the first call; between two failed starts lies a jittered, growing pause. `stop` ends the child and
everybody who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from base.clock import Clock
from base.ids import Random
from schemas.errors import Unavailable

COMMAND = (sys.executable, "-m", "workers.guardrails.scanners.persons_child")
_TRIES = 2  # children that may fail on the same text before its caller hears of it
_PAUSE_FIRST, _PAUSE_MOST = 0.1, 5.0  # seconds between failed children
_FRAME_MOST = 64 * 1024 * 1024  # bytes of one answer

Spans = list[tuple[int, int]]


class ScannerUnavailable(Unavailable):
    """The child could not judge a text: it died twice on it, can't be started, or was stopped."""


class _Answer(msgspec.Struct):
    id: int
    spans: list[list[tuple[int, int]]] = []


@dataclass(slots=True, eq=False)
class _Job:
    text: str
    answer: asyncio.Future[Spans]
    tries: int = 0


class Persons:
    """The client. wait, call_timeout and start_timeout are seconds."""

    def __init__(
        self,
        clock: Clock,
        chance: Random,
        *,
        batch: int = 32,
        wait: float = 0.005,
        call_timeout: float = 10.0,
        start_timeout: float = 60.0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._clock, self._chance = clock, chance
        self._batch, self._wait, self._call_timeout, self._start_timeout = batch, wait, call_timeout, start_timeout
        self._command = command
        self._queue: deque[_Job] = deque()
        self._work = asyncio.Event()
        self._child: asyncio.subprocess.Process | None = None
        self._runner: asyncio.Task[None] | None = None
        self._stopped = False
        self._calls = 0
        self.starts = 0  #: children started so far
        self.batches = 0  #: batches answered so far

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def start(self) -> None:
        """Have the child's model loaded and used once, so that no request's time passes with it. As `find`."""
        await self.find(["-"])

    async def find(self, texts: Sequence[str]) -> list[Spans]:
        """Spans that the model calls persons, text by text. ScannerUnavailable; time limits are the caller's."""
        if self._stopped:
            raise ScannerUnavailable("the persons scanner was stopped")
        loop = asyncio.get_running_loop()
        jobs = [_Job(text, loop.create_future()) for text in texts]
        self._queue.extend(jobs)
        self._run()
        self._work.set()
        try:
            return list(await asyncio.gather(*[job.answer for job in jobs]))
        finally:
            for job in jobs:
                job.answer.cancel()

    async def stop(self) -> None:
        """End the child and refuse whoever waits. Idempotent."""
        self._stopped = True
        if self._runner:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        await self._end_child()
        while self._queue:
            _fail(self._queue.popleft(), "the persons scanner was stopped")

    def _run(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._serve(), name="persons-child")

    async def _serve(self) -> None:
        failures = 0
        while True:
            await self._work.wait()
            jobs: list[_Job] = []
            try:
                child = await self._ready_child()
                jobs = await self._gather()
                if jobs:
                    await self._exchange(child, jobs)
                failures = 0
            except (OSError, EOFError, TimeoutError, msgspec.MsgspecError, ValueError):
                failures += 1
                await self._end_child()
                self._again(jobs or self._take())
                await self._clock.sleep(self._chance.uniform(0.5, 1.0) * min(_PAUSE_MOST, _PAUSE_FIRST * 2**failures))

    async def _gather(self) -> list[_Job]:
        """The next batch: waits a moment for a fuller one. Empty when everybody has given up."""
        if len(self._queue) < self._batch:
            await self._clock.sleep(self._wait)
        return self._take()

    def _take(self) -> list[_Job]:
        jobs: list[_Job] = []
        while self._queue and len(jobs) < self._batch:
            job = self._queue.popleft()
            if not job.answer.done():
                jobs.append(job)
        if not self._queue:
            self._work.clear()
        return jobs

    def _again(self, jobs: Sequence[_Job]) -> None:
        """After a failure: back to the head of the queue, or to the caller when it was tried enough."""
        for job in reversed(jobs):
            job.tries += 1
            if job.tries >= _TRIES:
                _fail(job, "the process that recognises persons failed twice on this text")
            elif not job.answer.done():
                self._queue.appendleft(job)
        if self._queue:
            self._work.set()

    async def _exchange(self, child: asyncio.subprocess.Process, jobs: Sequence[_Job]) -> None:
        self._calls += 1
        async with asyncio.timeout(self._call_timeout):
            await _send(child, {"id": self._calls, "texts": [job.text for job in jobs]})
            answer = await _receive(child)
        if answer.id != self._calls or len(answer.spans) != len(jobs):
            raise ValueError("an answer that belongs to another batch")
        self.batches += 1
        for job, spans in zip(jobs, answer.spans, strict=True):
            if not job.answer.done():
                job.answer.set_result(spans)

    async def _ready_child(self) -> asyncio.subprocess.Process:
        """The living child, or a new one with its model loaded."""
        if self._child is not None and self._child.returncode is None:
            return self._child
        self.starts += 1
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, limit=1 << 20)
        async with asyncio.timeout(self._start_timeout):
            await _receive(self._child)
        if not self._queue:
            self._work.clear()
        return self._child

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        if child.stdin:
            child.stdin.close()
        await child.wait()


def _fail(job: _Job, reason: str) -> None:
    if not job.answer.done():
        job.answer.set_exception(ScannerUnavailable(reason))


async def _send(child: asyncio.subprocess.Process, value: object) -> None:
    assert child.stdin
    body = msgspec.json.encode(value)
    child.stdin.write(struct.pack(">I", len(body)) + body)
    await child.stdin.drain()


async def _receive(child: asyncio.subprocess.Process) -> _Answer:
    """One frame. EOFError (asyncio.IncompleteReadError) when the child is gone, ValueError when it talks nonsense."""
    assert child.stdout
    (size,) = struct.unpack(">I", await child.stdout.readexactly(4))
    if size > _FRAME_MOST:
        raise ValueError("a frame longer than any answer")
    return msgspec.json.decode(await child.stdout.readexactly(size), type=_Answer)
