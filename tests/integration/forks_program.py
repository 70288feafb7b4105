"""Children for test_replicas: how many of 50 are deaf to a signal that comes before they have begun, and how many of
300 that end well are taken for something else at the moment in which they close their pipe."""

from __future__ import annotations

import os
import signal
import threading
import time

from console import forks
from console.embedded import processes
from console.supervisor import Signals


def deaf(signals: Signals) -> bool:
    """Whether a child outlives a SIGTERM that comes as soon as it is there."""
    pid = forks.fork(signal.pause, log=None, closing=signals.descriptors)
    os.kill(pid, signal.SIGTERM)
    if processes.wait_until(lambda: processes.gone(forks.identity(pid)), 0.5):
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def busy() -> None:
    """Work that ends while other threads still sleep."""
    for _ in range(8):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def misjudged(signals: Signals) -> bool:
    """Whether a child that ends with 0 is seen to end in another way."""
    ours, theirs = os.pipe()
    pid = forks.fork(busy, log=None, closing=(*signals.descriptors, ours))
    known = forks.identity(pid)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    while (status := processes.end_of(known)) is None:
        pass
    return status != 0


if __name__ == "__main__":
    listening = Signals()
    print(sum(deaf(listening) for _ in range(50)), sum(misjudged(listening) for _ in range(300)))
