"""Owns the processes and the signals of one machine.

- `headrace scale` asks over DIR/control.sock for more or fewer processes of a room, which lasts until this one ends.
- Room processes are forked from this one before any loop or thread exists here, and again after each death, with a
  jittered pause that grows while a process keeps dying.
- SIGINT, SIGTERM and SIGHUP ask for the stop sequence below; a second one shortens every wait to a second.
- Rooms get SIGTERM when this process is killed, drain and end. Servers stay, so that nothing is lost meanwhile; the
  next start adopts them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from base.clock import Clock
from base.ids import Random
from console import forks
from console.control_socket import ControlSocket
from console.embedded import processes
from console.embedded.errors import EmbeddedError, last_line
from console.fleet import RoomProcess, make_process, serves, too_many
from console.stack import DRAIN, RunRooms, Say, Source, room_of

DRAIN_SECONDS = 30.0
HURRY_SECONDS = 1.0
STEADY_SECONDS = 20.0  # a process that lived this long starts again without a pause
STARTING_DEATHS = 3  # deaths before readiness that make a start give up
_TICK = 0.5  # seconds between two looks at adopted servers, which send no SIGCHLD
_PAUSE = (0.1, 5.0)  # first and longest pause before a restart, seconds


class Stopped(Exception):
    """The user asked to stop while something was still starting."""


class StartError(Exception):
    """A room that does not come up; the text has its log's last line."""


class Server(Protocol):
    """An embedded server under supervision."""

    name: str

    def start(self) -> None: ...
    def is_alive(self) -> bool: ...
    def stop(self) -> None: ...
    @property
    def pid(self) -> int: ...


class Signals:
    """Counts requests to stop and wakes a select. One per process, in the main thread."""

    def __init__(self) -> None:
        self.asked = 0
        self.wakeup, self._write = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(self._write, False)
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        self._old[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._ask)
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._child)

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a forked child has to close."""
        return self.wakeup, self._write

    def wait(self, seconds: float, others: Sequence[int] = ()) -> None:
        """Until a signal, something to read on `others`, or the time is over."""
        select.select([self.wakeup, *others], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 512):
                pass

    def check(self) -> None:
        """Stopped when the user asked for it."""
        if self.asked:
            raise Stopped

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        for descriptor in self.descriptors:
            os.close(descriptor)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1

    def _child(self, number: int, frame: FrameType | None) -> None:
        """Only there so that the wakeup descriptor is written."""


class Supervisor:
    """Keeps rooms and servers running until asked to stop."""

    def __init__(
        self,
        layout: Sequence[tuple[str, ...]],
        run: RunRooms,
        source: Source,
        folder: Path,
        *,
        signals: Signals,
        clock: Clock,
        chance: Random,
        say: Say,
        closing: Sequence[int] = (),
        drain: tuple[float, float] = (DRAIN_SECONDS, DRAIN_SECONDS),
    ) -> None:
        """folder: logs and records; closing: descriptors that no child may keep (the lock of the data folder).
        drain: seconds the door and the other rooms may take to end after SIGTERM."""
        self._folder, self._logs = folder, folder / "logs"
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.rooms: list[RoomProcess] = []
        self.drained: list[RoomProcess] = []  # of the layout, ended as they were asked to; `scale` brings them back
        for rooms in layout:
            self._add(rooms, planned=True)
        self._desk: ControlSocket | None = None
        self.servers: list[Server] = []
        self.on_change: Callable[[], None] = lambda: None
        self._run, self._source, self._record = run, source, folder / "rooms"
        self._signals, self._clock, self._chance, self._say = signals, clock, chance, say
        self._closing, self._drain = tuple(closing), drain
        self._record.mkdir(mode=0o700, exist_ok=True)

    def end_leftovers(self) -> None:
        """Rooms of a supervisor that was killed: they are draining already; wait for them, then end them."""
        left = [known for path in self._record.glob("*.json") if (known := processes.read_record(path))]
        if left:
            self._say(f"Waiting for {len(left)} process(es) of an earlier run to drain")
        self._end(left, max(self._drain), hurry_at=1)

    def start(self, seconds: float) -> None:
        """Fork every process and wait until all rooms are ready. StartError, Stopped."""
        deadline = self._clock.monotonic() + seconds
        while not all(process.is_ready for process in self.rooms):
            self._signals.check()
            self._turn()
            for process in self.rooms:
                if process.deaths >= STARTING_DEATHS or self._clock.monotonic() > deadline:
                    raise self._not_ready(next(late for late in self.rooms if not late.is_ready))

    def listen(self) -> None:
        """Take commands from now on; they are answered as soon as `watch` runs."""
        self._desk = ControlSocket(self._folder)

    def watch(self) -> None:
        """Keep everything running, in the number that is asked for, until the user asks to stop."""
        try:
            while not self._signals.asked:
                self._turn()
                for server in self.servers:
                    self._revive(server)
        finally:
            if self._desk is not None:
                self._desk.close()
            self._desk = None

    def stop(self) -> None:
        """The stop sequence for rooms; servers follow in reverse order of their start.

        1. ingress: takes no new requests and finishes the streams it holds, which needs everything behind it;
        2. the other rooms: finish what they have claimed, leave the rest to the next start.
        """
        doors = [process for process in self.rooms if "ingress" in process.rooms]
        others = [process for process in self.rooms if "ingress" not in process.rooms]
        for group, seconds in zip((doors, others), self._drain, strict=True):
            self._end([process.known for process in group if process.known is not None], seconds, hurry_at=2)
        for process in self.rooms:
            self._forget(process)

    def pids(self) -> dict[str, int]:
        """Every room and server with the process it runs in now."""
        newest_first = reversed(self.rooms)
        found = {room: process.known.pid for process in newest_first if process.known for room in process.rooms}
        return found | {server.name: server.pid for server in self.servers}

    def health_ports(self) -> dict[str, int]:
        """Where each room answers /livez, /readyz and /metrics; of several processes the first."""
        return {room: port for process in reversed(self.rooms) for room, port in process.health.items()}

    def shapes(self) -> list[dict[str, Any]]:
        """Every room process."""
        return [process.shape() for process in self.rooms]

    def scale(self, group: str, count: int) -> str:
        """Have `count` processes for the room that serves the group; its name. More are started at the next turn,
        drained ones first; what is too much goes through its stop sequence. LayoutError, ScaleError."""
        room = room_of(group)
        for process in too_many(self.rooms, room, count):
            process.leaving = True
            if process.known is None:
                self._retire(process)
            else:
                processes.send(process.known, DRAIN)
        for _ in range(count - len(serves(self.rooms, room))):
            back = next((process for process in self.drained if room in process.rooms), None)
            if back is None:
                self._add((room,))
            else:
                self.drained.remove(back)
                self.rooms.append(back)
                back.leaving, back.due, back.deaths = False, 0.0, 0
        self._say(f"{room}: {count} process(es) wanted")
        return room

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """What the control socket is asked: {"do": "scale", "group", "count"} or {"do": "status"}."""
        try:
            if message.get("do") == "scale":
                room = self.scale(str(message["group"]), int(message["count"]))
                return {"room": room, "processes": self.shapes()}
            if message.get("do") == "status":
                return {"processes": self.shapes()}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return {"error": str(error)}
        return {"error": f"unknown request {message.get('do')!r}"}

    def _add(self, rooms: tuple[str, ...], *, planned: bool = False) -> None:
        process = make_process(rooms, self._logs, [*self.rooms, *self.drained])
        process.planned = planned
        self.rooms.append(process)

    def _turn(self) -> None:
        """One look: start what is due, sleep until something happens, read pipes, notice deaths."""
        now = self._clock.monotonic()
        for process in self.rooms:
            if process.due is not None and process.due <= now:
                self._start(process)
        pipes = {process.lines.descriptor: process for process in self.rooms if process.lines}
        waits = [process.due - now for process in self.rooms if process.due is not None]
        asking = self._desk.descriptors if self._desk else []
        self._signals.wait(min([_TICK, *waits]), [*pipes, *asking])
        for process in pipes.values():
            self._listen(process)
        for process in list(self.rooms):
            if process.known is not None:
                self._look_after(process, process.known)
        if self._desk is not None:
            self._desk.serve(self._answer)

    def _look_after(self, process: RoomProcess, known: processes.Identity) -> None:
        """Notice its end. Asked to go, or ready and gone by its own stop sequence: it is not started again."""
        status = processes.end_of(known)
        if status is None:
            return
        if process.leaving or (status == 0 and process.is_ready):
            self._retire(process)
        else:
            self._died(process, status)

    def _start(self, process: RoomProcess) -> None:
        ours, theirs = os.pipe()
        open_pipes = [other.lines.descriptor for other in self.rooms if other.lines]
        asking = self._desk.descriptors if self._desk else []
        closing = [*self._closing, *self._signals.descriptors, *open_pipes, *asking, ours]
        source = _beside(self._source) if process.beside else self._source

        def work() -> None:
            self._run(list(process.rooms), source, theirs)

        pid = forks.fork(work, log=process.log, closing=closing)
        os.close(theirs)
        process.lines, process.health = forks.Lines(ours), {}
        process.started, process.due = self._clock.monotonic(), None
        process.known = forks.identity(pid)
        processes.write_record(self._record / f"{process.name}.json", process.known)

    def _listen(self, process: RoomProcess) -> None:
        """Readiness lines; the pipe is closed when the child has closed its end."""
        lines = process.lines
        if lines is None:
            return
        was_ready = process.is_ready
        for message in lines.read():
            for room in message.get("rooms", [message.get("room")]):
                process.health[str(room)] = int(message.get("health_port", 0))
            process.consumer = str(message.get("consumer", process.consumer))
        if lines.ended:
            lines.close()
            process.lines = None
        if process.is_ready and not was_ready:
            self.on_change()

    def _died(self, process: RoomProcess, status: int) -> None:
        """Plan the next start: at once after a long life, else after a pause that doubles with each death."""
        lived = self._clock.monotonic() - process.started
        process.deaths = 1 if lived > STEADY_SECONDS else process.deaths + 1
        pause = min(_PAUSE[1], _PAUSE[0] * 2 ** (process.deaths - 1)) * self._chance.uniform(0.5, 1.0)
        process.due = self._clock.monotonic() + pause
        self._forget(process)
        how = processes.said_end(status)
        self._say(
            f"{process.title} ended unexpectedly ({how}): starting it again in {pause:.1f} s (log: {process.log})"
        )

    def _retire(self, process: RoomProcess) -> None:
        """It went in order and stays away until `scale` wants it."""
        self._forget(process)
        process.due = None
        self.rooms.remove(process)
        if process.planned:
            self.drained.append(process)
        left = [room for room in process.rooms if not serves(self.rooms, room)]
        warning = f"; nobody here serves {', '.join(left)} now (`headrace scale {left[0]} 1`)" if left else ""
        self._say(f"{process.title} was drained and is not started again{warning}")
        self.on_change()

    def _forget(self, process: RoomProcess) -> None:
        process.known, process.health, process.consumer = None, {}, ""
        if process.lines is not None:
            process.lines.close()
            process.lines = None
        (self._record / f"{process.name}.json").unlink(missing_ok=True)

    def _revive(self, server: Server) -> None:
        """Start a server again that has died; on failure the next turn tries once more."""
        if server.is_alive():
            return
        self._say(f"{server.name} ended unexpectedly: starting it again")
        try:
            server.start()
        except EmbeddedError as error:
            self._say(str(error))
            self._signals.wait(1.0)
            return
        self.on_change()

    def _end(self, wanted: Sequence[processes.Identity], drain: float, hurry_at: int) -> None:
        """SIGTERM to all, wait for `drain` seconds, SIGKILL to what is left. hurry_at: so many requests to stop make
        it a second."""
        begun = self._clock.monotonic()
        for known in wanted:
            processes.send(known, signal.SIGTERM)
        while left := [known for known in wanted if not processes.gone(known)]:
            patience = HURRY_SECONDS if self._signals.asked >= hurry_at else drain
            if self._clock.monotonic() - begun > patience:
                break
            self._signals.wait(0.05)
        for known in left:
            processes.stop(known, gently=signal.SIGKILL, seconds=5.0)

    def _not_ready(self, process: RoomProcess) -> StartError:
        return StartError(f"{process.title} did not become ready: {last_line(process.log)}")


def _beside(source: Source) -> Source:
    """For a further process of a room: the fixed ports are taken by the first."""
    return replace(source, overrides={**source.overrides, "metrics.port": 0})
