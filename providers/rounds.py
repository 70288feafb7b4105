"""Fast answers are read together, a round at a time: what cannot leave yet need not be read yet.

An engine may write a run's tokens faster than its frames leave (`router.coalesce_ms`). Read as they arrive, each costs
a wake of the loop, a system call and cold caches, and then lies there until the next frame. So a connection that brings
two pieces or more in that time leaves the loop's own poll for one that is asked once a round: one read brings what has
arrived, and the frames of all such runs leave together. What waits meanwhile waits in the socket. A connection is a
member only while somebody hears it, so that whatever comes after an answer is noticed at once.

Only plain sockets can join, and only where there is epoll; the others are read as before.
"""

from __future__ import annotations

import asyncio
import os
import select
from contextlib import suppress
from typing import Protocol, cast

from base import logs
from providers.ports import Every

_MOST = 64  # sockets read in one turn of the loop, so that others have their turn: a millisecond or two
_BYTES = 64 * 1024  # of one read; who brings so much at once is read by the loop, which goes on at once
_EMPTY = 8  # rounds in a row that bring nothing, after which there are none
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
    """One per transport; members are known by their descriptors. All want the same pace: the one last named counts."""

    def __init__(self) -> None:
        self._poll: select.epoll | None = None
        self._members: dict[int, tuple[Member, asyncio.Transport]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._ready: list[int] = []  # still to be read in this round
        self._due = 0.0  # when the next one is
        self._empty = 0
        self._every: Every

    def join(self, member: Member, transport: asyncio.Transport, every: Every) -> int | None:
        """From the next round on it is read in rounds. Its descriptor, for `leave`; None where it cannot join."""
        if transport.is_closing() or transport.get_extra_info("sslcontext") is not None or not hasattr(select, "epoll"):
            return None
        fd = cast(int, transport.get_extra_info("socket").fileno())
        try:
            self._poll = self._poll or select.epoll()
            self._poll.register(fd, select.EPOLLIN)
        except OSError:  # no descriptor is left, or no room for one more
            return None
        transport.pause_reading()
        self._members[fd], self._every = (member, transport), every
        if self._timer is None:
            self._empty = 0
            self._timer = self._loop.call_later(every(), self._round)
        return fd

    def leave(self, fd: int) -> None:
        """From now on the loop reads it again, unless it is closing."""
        _, transport = self._members.pop(fd)
        if self._poll is not None:
            with suppress(OSError):
                self._poll.unregister(fd)
        if not transport.is_closing():
            transport.resume_reading()

    def close(self) -> None:
        """All leave."""
        self._disband()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._poll is not None:
            self._poll.close()
            self._poll = None

    def _round(self) -> None:
        """Read all that have something, `_MOST` of them in each turn of the loop."""
        self._timer = None
        if self._poll is None or not self._members:
            return
        self._due = self._loop.time() + self._every()
        self._ready = [fd for fd, _ in self._poll.poll(0, len(self._members))]
        self._empty = 0 if self._ready else self._empty + 1
        if self._empty < _EMPTY:
            self._read_on()
        else:
            self._disband()

    def _read_on(self) -> None:
        now, self._ready = self._ready[:_MOST], self._ready[_MOST:]
        for fd in now:
            if fd in self._members:  # what a neighbour brought may have ended it
                self._read(fd)
        if self._ready:
            self._timer = self._loop.call_soon(self._read_on)
        elif self._members:
            self._timer = self._loop.call_at(self._due, self._round)
        else:
            self._timer = None

    def _read(self, fd: int) -> None:
        """A socket that has ended or failed is left to the loop, which finds out by itself."""
        member, _ = self._members[fd]
        try:
            data = os.read(fd, _BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            if data:
                member.data_received(data)
            if not data or len(data) == _BYTES:
                member.leave()
        except Exception:
            log.exception("what an engine sent was not taken")
            member.cut()

    def _disband(self) -> None:
        for member, _ in tuple(self._members.values()):
            member.leave()
