"""Named crash points, for tests of what survives: FAULT=<stage>:<point>:<nth>[:exit|hang|raise].

Points: P1 after an entry was read, P2 after the handler's side effect, P3 before the acknowledging script, P4 after it;
a stage is a group's name, or `ingress`. FAULT_ONCE=<file>: the fault strikes once over all restarts; the file remembers.
Without the variable every call is one comparison with None.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass


class InjectedFault(Exception):
    """Raised by a fault of kind `raise`."""


@dataclass(slots=True)
class Fault:
    stage: str
    point: str
    nth: int
    kind: str = "exit"


def parse(text: str) -> Fault | None:
    """The fault that FAULT describes. ValueError when it is malformed."""
    if not text:
        return None
    stage, point, nth, *kind = text.split(":")
    fault = Fault(stage, point, int(nth), kind[0] if kind else "exit")
    if fault.kind not in ("exit", "hang", "raise"):
        raise ValueError(f"FAULT kind {fault.kind!r} must be exit, hang or raise")
    return fault


_armed = parse(os.environ.get("FAULT", ""))


def hit(stage: str, point: str) -> None:
    """Die, hang or raise here if this is the nth passage of the armed point."""
    if _armed is not None and _armed.stage == stage and _armed.point == point:
        _strike(_armed)


def _strike(fault: Fault) -> None:
    fault.nth -= 1
    if fault.nth != 0 or not _first_time(os.environ.get("FAULT_ONCE", "")):
        return
    if fault.kind == "raise":
        raise InjectedFault(f"{fault.stage}:{fault.point}")
    os.kill(os.getpid(), signal.SIGKILL if fault.kind == "exit" else signal.SIGSTOP)


def _first_time(file: str) -> bool:
    """Whether this fault has not struck before; without a file it always may."""
    if not file:
        return True
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True
