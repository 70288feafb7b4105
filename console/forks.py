"""Forking without surprises: the parent has no loop and no thread, the child owns its signals and dies with it.

Everything `headrace up` runs in Python is forked from one parent that has imported it already, so that the processes
share their memory (7 rooms: about a third of what 7 separate interpreters take).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from console.embedded import processes

#: What a child writes on its pipe: one JSON object a line.
Message = dict[str, Any]
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def freeze() -> None:
    """Call once after the imports and before the first fork: shared pages stay shared (gc.freeze)."""
    gc.collect()
    gc.freeze()


def fork(work: Callable[[], None], *, log: Path | None, closing: Iterable[int], death: int = signal.SIGTERM) -> int:
    """Run `work` in a child and return its pid.

    The child is a session of its own (Ctrl-C is the parent's), writes to `log`, has closed the parent's `closing`
    descriptors and gets `death` when the parent ends. It never returns into the parent's code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # A signal to the child must not meet the parent's handlers, which would swallow it: it waits until they are reset.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    pid = os.fork()
    if pid == 0:
        _child(work, log, closing, parent, death)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def identity(pid: int) -> processes.Identity:
    """Who a child is; one that has ended already is somebody who is gone."""
    return processes.identify(pid) or processes.Identity(pid, 0, "", "")


def _child(work: Callable[[], None], log: Path | None, closing: Iterable[int], parent: int, death: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        processes.die_with_parent(death)
        if os.getppid() != parent:
            os._exit(1)
        _reset_signals()
        for number in closing:
            with contextlib.suppress(OSError):
                os.close(number)
        if log is not None:
            _write_to(log)
        work()
        status = 0
    except SystemExit as wish:
        status = wish.code if isinstance(wish.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _reset_signals() -> None:
    """The parent's handlers are not the child's; a Ctrl-C is never meant for the child."""
    signal.set_wakeup_fd(-1)
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def _write_to(log: Path) -> None:
    """Standard output and error into the log (appended, 0600); standard input is empty."""
    with processes.open_log(log) as target:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)


def write_message(descriptor: int, message: Message) -> None:
    """One line of JSON; under PIPE_BUF (4096 bytes) it is never torn."""
    os.write(descriptor, json.dumps(message).encode() + b"\n")


class Lines:
    """Reads a pipe's messages as they come. A line that is not a JSON object is an error text."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._rest = b""
        os.set_blocking(descriptor, False)

    def read(self) -> Iterator[Message]:
        """What has arrived whole since the last call; `ended` turns true at the end of the pipe."""
        while not self.ended:
            try:
                piece = os.read(self.descriptor, 65536)
            except BlockingIOError:
                break
            self.ended = not piece
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        for line in filter(None, lines):
            try:
                yield dict(json.loads(line))
            except (ValueError, TypeError):
                yield {"error": line.decode(errors="replace")}

    def close(self) -> None:
        """Close our end."""
        os.close(self.descriptor)
