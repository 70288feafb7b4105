"""Three processes under one parent for test_replicas: `replicas_program.py FOLDER [--broken]`. Each notes its pid in
FOLDER/<number>.<pid> while it lives, and ends well on SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from base.ids import SystemRandom
from console.replicas import Replicas
from console.supervisor import Signals

FOLDER = Path(sys.argv[1])


def work(number: int) -> None:
    """A process that only waits."""
    if "--broken" in sys.argv and number == 1:
        raise SystemExit(2)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    mark = FOLDER / f"{number}.{os.getpid()}"
    mark.touch()
    signal.sigwait({signal.SIGTERM})
    mark.unlink()


if __name__ == "__main__":
    sys.exit(Replicas(work, Signals(), SystemRandom(), print).run(3))
