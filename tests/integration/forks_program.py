"""Children that are told to go before they have begun, for test_replicas: prints how many of 50 were deaf to it."""

from __future__ import annotations

import os
import signal

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


if __name__ == "__main__":
    listening = Signals()
    print(sum(deaf(listening) for _ in range(50)))
