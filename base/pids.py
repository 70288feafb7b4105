"""Processes of this machine as /proc knows them: a pid alone names nobody, a pid with its start time one process."""

from __future__ import annotations

import os
from pathlib import Path


def born(pid: int, *, leader: bool = False) -> int:
    """The start time in kernel ticks (field 22 of /proc/<pid>/stat, proc(5)); 0 = gone, a zombie, or (leader) not the
    first of its session. A zombie whose other threads (field 20) still end has its files open: it is there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = text[text.rindex(b")") + 2 :].split()  # the name in parentheses may hold anything
    if (fields[0] in (b"Z", b"X") and int(fields[17]) <= 1) or (leader and int(fields[3]) != pid):
        return 0
    return int(fields[19])


def alive(pid: int, since: int) -> bool:
    """Whether the process with this pid and start time still runs; a zombie does not."""
    return since != 0 and born(pid) == since


def exit_status(pid: int) -> int | None:
    """Collects an ended child: its exit code, -N for signal N; None while it runs and for anybody else's process."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if ended else None
