"""Errands: work that needs loops and drivers, done in a forked child so that the supervisor has neither.

The child tells progress and its result over a pipe (pickled result: both ends are the same program).
"""

from __future__ import annotations

import base64
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from console import forks
from console.embedded import processes
from console.embedded.errors import last_line
from console.stack import Say
from console.supervisor import Signals, Stopped

Result = TypeVar("Result")


class ErrandError(Exception):
    """An errand that failed; the text is the foreign error's own, meant for the user."""


def run_errand(
    work: Callable[[Say], Result], signals: Signals, say: Say, *, log: Path, closing: Sequence[int]
) -> Result:
    """The result of `work` in a child. ErrandError when it raised or died, Stopped when the user asked to stop."""
    ours, theirs = os.pipe()
    pid = forks.fork(lambda: _errand(work, theirs), log=log, closing=[*closing, ours], death=signal.SIGKILL)
    os.close(theirs)
    lines = forks.Lines(ours)
    try:
        return _follow(lines, signals, say, log)
    finally:
        lines.close()
        child = processes.identify(pid)
        if child is not None:
            processes.stop(child, gently=signal.SIGTERM, seconds=2.0)


def _follow(lines: forks.Lines, signals: Signals, say: Say, log: Path) -> Result:  # type: ignore[type-var]
    while not lines.ended:
        signals.wait(0.5, [lines.descriptor])
        if signals.asked:
            raise Stopped
        for message in lines.read():
            if "say" in message:
                say(str(message["say"]))
            elif "result" in message:
                result: Result = pickle.loads(base64.b64decode(str(message["result"])))  # written by our own fork
                return result
            else:
                raise ErrandError(str(message.get("error", "the step failed without a word")))
    raise ErrandError(f"the step ended without an answer: {last_line(log)}")


def _errand(work: Callable[[Say], object], descriptor: int) -> None:
    """In the child: progress, then the result or the error's text; the traceback goes to the log."""
    try:
        result = work(lambda text: forks.write_message(descriptor, {"say": text}))
    except Exception as error:
        forks.write_message(descriptor, {"error": str(error) or type(error).__name__})
        raise
    forks.write_message(descriptor, {"result": base64.b64encode(pickle.dumps(result)).decode()})
