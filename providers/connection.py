"""One connection to an engine: one request at a time, its answer parsed as it arrives, never more than a little ahead.

When the reader is behind by READ_AHEAD bytes the socket is read no further, so TCP slows the engine down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from providers.errors import BadResponse, Broken, UpstreamFault
from providers.http_answer import Answer
from providers.ports import Every
from providers.rounds import Rounds

#: Bytes read ahead of the reader before the socket is paused.
READ_AHEAD = 64 * 1024
_JUDGED = 8  # pieces by which it is judged how fast they come
_LEAST_S = 0.001  # a shorter round is none
_SILENT = "the engine closed the connection without an answer"
_SHORT = "the engine's answer ended before it was complete"


class Connection(asyncio.Protocol):
    """ended: called once when it is gone, with the connection. fault: why the present answer will never be whole.
    hear: takes what has arrived at once, while somebody waits; as long as it wants more the wait goes on. every: how
    many seconds apart it wants it; an answer that is faster is read in rounds."""

    def __init__(self, ended: Callable[[Connection], None], rounds: Rounds) -> None:
        self.answer: Answer | None = None
        self.fault: UpstreamFault | None = None
        self._ended, self._loop = ended, asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.hear: Callable[[], bool] | None = None
        self.every: Every | None = None
        self._rounds = rounds
        self._member: int | None = None  # of the rounds, under this descriptor
        self._pieces, self._since = 0, 0.0  # how many were heard since when
        self._look: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def send(self, head: bytes, body: bytes) -> Answer:
        """Begin a call on a connection that was lent; what comes is put into the answer."""
        self.answer, self._pieces, self._since = Answer(), 0, self._loop.time()
        if self._transport is None:
            self.fault = Broken(_SILENT)
        else:
            self._transport.writelines((head, body) if body else (head,))
        return self.answer

    def arrival(self) -> asyncio.Future[None]:
        """Done when something has arrived, nothing more will, or at a `nudge`. One waits at a time; cancelling it
        loses nothing."""
        if self._paused:
            self._resume()
        self._waiter = self._loop.create_future()
        return self._waiter

    def watch(self, seconds: float, look: Callable[[], None]) -> None:
        """Have `look` called in so many seconds or before, if the call has not ended: it must look whether it is time.
        One timer serves call after call, since making one takes longer than looking once too often."""
        due, self._look = self._loop.time() + seconds, look
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due, self._timer = due, self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._look is not None:
            self._look()

    def nudge(self) -> None:
        """End the present wait."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def idle(self) -> bool:
        """Whether a request may be sent: no call uses it, and the last one left nothing behind."""
        return self.answer is None and self._transport is not None and not self._transport.is_closing()

    def free(self) -> bool:
        """The call is over: whether the connection can carry another one; if not, it is cut."""
        answer, transport = self.answer, self._transport
        self.answer = self._look = self.every = None
        self.leave()
        if answer is None or transport is None or not answer.reusable or transport.is_closing():
            if answer is not None:
                answer.leave()
            self.cut()
            return False
        if transport.get_write_buffer_size():  # answered before the request was sent
            self.cut()
            return False
        if self._paused:
            self._resume()
        return True

    def cut(self, fault: UpstreamFault | None = None) -> None:
        """End it at once; whoever waits for the answer gets `fault`."""
        why = self.fault or fault or Broken("the call was closed")
        self.fault = why.with_traceback(None)  # that would hold this connection
        self.leave()
        if self._transport is not None:
            self._transport.abort()
        self.nudge()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by isinstance

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self.cut()  # nobody asked: the answer to nothing must not become that of the next request
            return
        try:
            answer.feed(data)
        except BadResponse as fault:
            self.cut(fault)
            return
        if self.hear is not None and answer.pieces and self._is_heard(answer, self.hear):
            return
        if answer.size > READ_AHEAD and not answer.complete:
            self._pause()
        self.nudge()

    def _is_heard(self, answer: Answer, hear: Callable[[], bool]) -> bool:
        """What has arrived is taken; whether the wait goes on."""
        self._pieces += len(answer.pieces)
        if not hear():  # it has enough; what comes before it wakes waits
            self.hear = None
            self.leave()
            return False
        if self._pieces >= _JUDGED and not answer.complete:
            self._judge_pace()
        return not answer.complete

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        answer = self.answer
        if answer is not None and self.fault is None and not answer.end():
            self.fault = Broken(_SHORT if answer.has_head else _SILENT)
        self.nudge()
        self._ended(self)

    def _judge_pace(self) -> None:
        """Into the rounds when two pieces or more come in the time of one, out of them when half of one does."""
        now = self._loop.time()
        each, self._pieces, self._since = (now - self._since) / self._pieces, 0, now
        every = self.every() if self.every is not None else 0.0
        if self._member is not None:
            if each > 2 * every:
                self.leave()
        elif self.every is not None and self._transport is not None and 2 * each <= every >= _LEAST_S:
            self._member = self._rounds.join(self, self._transport, self.every)

    def leave(self) -> None:
        """See providers.rounds.Member."""
        if self._member is not None:
            fd, self._member = self._member, None
            self._rounds.leave(fd)

    def _pause(self) -> None:
        self.leave()
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
