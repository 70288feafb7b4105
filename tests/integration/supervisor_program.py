"""`headrace up` with rooms that only wait, for test_supervisor_launch: `supervisor_program.py DATA [flags]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from base.clock import SystemClock
from base.ids import SystemRandom
from console import forks
from console.embedded.errors import EmbeddedError
from console.errands import ErrandError
from console.launch import LaunchError, Options, launch
from console.stack import DRAIN, LAYOUTS, Access, Plan, Say, Source, Wiring
from console.supervisor import StartError, Stopped

DATA = Path(sys.argv[1])


def note(deed: str) -> None:
    """One word into the file of deeds."""
    with (DATA / "deeds").open("a") as handle:
        handle.write(deed + "\n")


def run_rooms(rooms: list[str], source: Source, ready_fd: int) -> None:
    """Ready at once; ends on SIGTERM; tells what it does."""
    if "--broken" in sys.argv:
        raise RuntimeError("no such stream")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, DRAIN})
    assert str(source.overrides["redis.url"]).startswith(("redis://", "unix://"))
    name = rooms[0] if len(rooms) == 1 else "workers"
    if "metrics.port" in source.overrides:
        note(f"{name}:metrics.port={source.overrides['metrics.port']}")
    if source.heir_of:
        note(f"{name}:heir_of={source.heir_of}")
    message = {"rooms": rooms, "pid": os.getpid(), "health_port": 1, "consumer": f"{name}-{os.getpid()}-abc"}
    forks.write_message(ready_fd, message)
    while "--stubborn" in sys.argv:
        signal.pause()
    signal.sigwait({signal.SIGTERM, DRAIN})
    note(f"{name}:stopping")
    note(f"{name}:stopped")


def prepare(plan: Plan, say: Say) -> None:
    """Nothing to migrate."""
    if "--refuse" in sys.argv:
        raise ValueError("the database is from the future")
    say("preparing")
    while "--slow" in sys.argv:
        signal.pause()


def finish(plan: Plan, say: Say) -> Access:
    """A key at the first start only."""
    return Access("" if plan.known_api_key else "hr_test_key", "hr_admin_key", ("nothing",))


def main() -> int:
    """The same error border as console/cli/up.py."""
    layout = LAYOUTS["split" if "--split" in sys.argv else "merged"]
    if "--twice" in sys.argv:
        layout = (*layout, ("rules",), ("rules",))
    options = Options(data=DATA, port=0, layout=layout, local_model=False, drain=(600.0, 600.0))
    wiring = Wiring(run_rooms=run_rooms, prepare=prepare, finish=finish)
    try:
        launch(options, wiring, lambda text: print(text, flush=True), SystemClock(), SystemRandom())
    except (LaunchError, EmbeddedError, StartError, ErrandError) as error:
        print(error, flush=True)
        return 2
    except Stopped:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
