"""Named crash points, for tests of what survives.

    FAULT=<stage>:<point>:<nth>[:exit|hang|raise]     armed for the life of the process
    FAULT_FILE=<file>                                 the same words in a file, looked up at every passage; striking
                                                      removes the file, so it strikes once over all processes

Points: P1 after an entry was read, P2 after the handler's side effect, P3 before the acknowledging script, P4 after it;
a stage is a group's name, `claim` (P4 after a router's claim), or `ingress` (P1 a request was read, P3 before it is
accepted, P4 after that, P2 a frame is in hand that no client has seen). Without the variables every call is one
comparison.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


class InjectedFault(Exception):
    """Raised by a fault of kind `raise`."""


@dataclass(slots=True)
class Fault:
    """One fault, and how many passages are left until it strikes."""

    stage: str
    point: str
    nth: int
    kind: str = "exit"


def parse(text: str) -> Fault | None:
    """The fault that the words describe. ValueError when they are malformed."""
    if not text.strip():
        return None
    stage, point, nth, *kind = text.strip().split(":")
    fault = Fault(stage, point, int(nth), kind[0] if kind else "exit")
    if fault.kind not in ("exit", "hang", "raise"):
        raise ValueError(f"FAULT kind {fault.kind!r} must be exit, hang or raise")
    return fault


_armed = parse(os.environ.get("FAULT", ""))
_file = Path(os.environ["FAULT_FILE"]) if os.environ.get("FAULT_FILE") else None
_active = _armed is not None or _file is not None


def hit(stage: str, point: str) -> None:
    """Die, hang or raise here if this is the nth passage of the armed point."""
    if _active:
        _look(stage, point)


def _look(stage: str, point: str) -> None:
    if _armed is not None and (_armed.stage, _armed.point) == (stage, point):
        _armed.nth -= 1
        if _armed.nth == 0:
            _strike(_armed)
    if _file is not None:
        _look_into(_file, stage, point)


def _look_into(file: Path, stage: str, point: str) -> None:
    """The file's fault strikes the first passage, whoever removes the file."""
    try:
        fault = parse(file.read_text())
        if fault is None or (fault.stage, fault.point) != (stage, point):
            return
        file.unlink()
    except FileNotFoundError:
        return
    _strike(fault)


def _strike(fault: Fault) -> None:
    if fault.kind == "raise":
        raise InjectedFault(f"{fault.stage}:{fault.point}")
    os.kill(os.getpid(), signal.SIGKILL if fault.kind == "exit" else signal.SIGSTOP)
