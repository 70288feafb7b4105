"""Who a process is: identities that survive a reused pid, and stopping only what is really ours.

A server's record (`server.json` in its folder) names pid, start time in clock ticks, boot and program. A process is
ours when all of them still hold in /proc (proc(5)); a pid alone is never trusted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from base.clock import SystemClock
from base.pids import born

#: prctl(2), option 1: the signal a process gets when the thread that made it ends.
PR_SET_PDEATHSIG = 1
UNKNOWN_END = 256  # no exit code and no signal: the process was not our child
_POLL = 0.02  # seconds between two looks
_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever: `start_ticks` since boot and `boot` make a reused pid a different process."""

    pid: int
    start_ticks: int
    boot: str
    program: str
    port: int = 0


def identify(pid: int, port: int = 0) -> Identity | None:
    """The identity of a live process, None when there is none (a zombie counts as none)."""
    since = born(pid)
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return None  # not there, or gone meanwhile
    if not since:
        return None
    return Identity(pid, since, boot_id(), os.path.basename(program).rstrip(":"), port)


def adopt_child(process: subprocess.Popen[bytes], port: int) -> Identity | None:
    """The identity of a fresh child; Popen is told to forget it, for it may outlive us and `gone` collects it."""
    known = identify(process.pid, port)
    process.returncode = 0 if known is not None else process.wait()
    return known


@cache
def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(known: Identity) -> bool:
    """Whether exactly this process still runs: pid, start time and boot. The program name is the writer's title."""
    now = identify(known.pid)
    return now is not None and (now.start_ticks, now.boot) == (known.start_ticks, known.boot)


def works_in(pid: int, folder: Path) -> bool:
    """Whether the process has `folder` as its working directory; False when that cannot be read."""
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", folder)
    except OSError:
        return False


def working_in(folder: Path) -> list[int]:
    """Every live process with `folder` as its working directory, as far as we may look."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if works_in(pid, folder) and identify(pid) is not None]


def reap(pid: int) -> None:
    """Collect the status of an ended child; nothing happens for anybody else's process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def write_record(path: Path, known: Identity) -> None:
    """Write the record at once and whole, mode 0600."""
    write_private(path, json.dumps(asdict(known)))


def read_record(path: Path) -> Identity | None:
    """The recorded process if it is still exactly that one; None for a missing, broken or outdated record."""
    try:
        known = Identity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return known if is_alive(known) else None


def last_port(path: Path) -> int:
    """The port in a record, whether or not its process still runs; 0 without one."""
    try:
        return int(json.loads(path.read_text())["port"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically with mode 0600 from its first byte on."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    half.replace(path)


def open_log(path: Path) -> BinaryIO:
    """A server's log, opened to append, mode 0600."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Poll until `done` or the deadline; whether it came true."""
    deadline = _clock.monotonic() + seconds
    while not done():
        if _clock.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def send(known: Identity, number: int) -> None:
    """Signal exactly this process; nothing happens when it is gone."""
    if not is_alive(known):
        return
    try:
        os.kill(known.pid, number)
    except ProcessLookupError:
        return


def stop(known: Identity, *, gently: int, seconds: float, then: int = signal.SIGKILL) -> bool:
    """Ask with `gently`, wait, then force. True when it went by itself. Reaps it if it is our child."""
    send(known, gently)
    if wait_until(lambda: gone(known), seconds):
        return True
    send(known, then)
    if not wait_until(lambda: gone(known), 5.0):
        send(known, signal.SIGKILL)
        wait_until(lambda: gone(known), 5.0)
    return False


def end_of(known: Identity) -> int | None:
    """How the process ended: its exit code, -N for signal N, UNKNOWN_END for somebody else's; None while it runs.

    Of a child only the kernel's word counts: it looks dead in /proc while its other threads end, and has no status yet.
    """
    try:
        ended, status = os.waitpid(known.pid, os.WNOHANG)
    except ChildProcessError:
        return None if is_alive(known) else UNKNOWN_END
    return os.waitstatus_to_exitcode(status) if ended else None


def said_end(status: int) -> str:
    """An end in words, from `end_of`."""
    if status == UNKNOWN_END:
        return "exit code unknown"
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name


def gone(known: Identity) -> bool:
    """Whether the process has ended; collects its status when it was our child, so that no zombie stays."""
    reap(known.pid)
    return not is_alive(known)


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Called in a fresh child: get `number` when the parent ends, also when it is killed (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
