"""Fast answers are read together, a round at a time: what cannot leave yet need not be read yet.

An engine may write a run's tokens faster than its frames leave (`router.coalesce_ms`). Read as they arrive, each costs
a wake of the loop, a system call and cold caches, and then lies there until the next frame. So a connection that brings
two pieces or more in that time leaves the loop's own poll for one that is asked once a round: one read brings all that
has arrived, and the frames of all such runs leave together. What waits meanwhile waits in the socket.

Only plain sockets can join, and only where there is epoll; the others are read as before.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from base import logs

#: Says how many seconds apart the pieces of a fast answer are wanted, now.
Every = Callable[[], float]
_MOST = 64  # sockets read in one turn of the loop, so that others have their turn: a millisecond or two
_BYTES = 64 * 1024
log = logs.room("providers")


class Member(Protocol):
    """A connection in the eyes of the rounds."""

    def data_received(self, data: bytes) -> None:
        """What was read; never empty."""

    def leave(self) -> None:
        """Take yourself out of the rounds."""

    def cut(self) -> None:
        """End it at once."""


class Rounds:
    """One per transport. All members want the same pace: the one last named counts."""

    def __init__(self) -> None:
        self._poll: select.epoll | None = None
        self._members: dict[int, tuple[Member, asyncio.Transport]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._every: Every

    def join(self, member: Member, transport: asyncio.Transport, every: Every) -> int | None:
        """From the next round on it is read in rounds. Its place, for `leave`; None where it cannot."""
        if transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
            return None
        if self._poll is None:
            if not hasattr(select, "epoll"):
                return None
            self._poll = select.epoll()
        place = cast(int, transport.get_extra_info("socket").fileno())
        transport.pause_reading()
        self._poll.register(place, select.EPOLLIN)
        self._members[place], self._every = (member, transport), every
        if self._timer is None:
            self._timer = self._loop.call_later(every(), self._round)
        return place

    def leave(self, place: int) -> None:
        """From now on the loop reads it again."""
        _, transport = self._members.pop(place)
        if self._poll is not None:
            with suppress(OSError):  # its socket is closed
                self._poll.unregister(place)
        if not transport.is_closing():
            transport.resume_reading()

    def close(self) -> None:
        """All leave."""
        for member, _ in tuple(self._members.values()):
            member.leave()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._poll is not None:
            self._poll.close()
            self._poll = None

    def _round(self) -> None:
        self._timer = None
        if self._poll is None or not self._members:
            return
        due = self._loop.time() + self._every()
        ready = self._poll.poll(0, _MOST)
        for place, _ in ready:
            if place in self._members:  # what a neighbour brought may have ended it
                self._read(place)
        if len(ready) == _MOST:
            self._timer = self._loop.call_soon(self._round)
        elif self._members:
            self._timer = self._loop.call_at(due, self._round)

    def _read(self, place: int) -> None:
        """A socket that has ended or failed is left to the loop, which finds out by itself."""
        member, _ = self._members[place]
        try:
            data = os.read(place, _BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            member.leave()
            return
        try:
            member.data_received(data)
        except Exception:
            log.exception("what an engine sent was not taken")
            member.cut()
