"""How long a client waits when the consumer that holds its request is killed: scripts/takeover [--times N]

Each time a request of its own, whose holder dies by SIGKILL right after it read the entry; measured from outside, from
the request to the end of its answer (of a router: to its first token). Twice: `beside` another process of the same
room that lives, and `alone`, when the supervisor has to start one again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from console.control_socket import ask
from console.supervisor import STEADY_SECONDS
from tests.e2e.house import House, headrace, read_event, scripted_engine, until

SHORT = ("authorization", "rules", "persons")
SETTINGS = """
server: {deadline: 60}
guardrails: {families: {persons: {enabled: true}}}
"""


def wait_of(house: House, fault: Path, room: str) -> float:
    """Seconds to the first bytes of the answer to a request whose holder was killed."""
    fault.write_text(f"{room}:P1:1")
    begun = time.monotonic()
    body = {"model": "mock", "stream": True, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
    line = house.post(body)
    reply = line.getresponse()
    assert reply.status == 200, reply.read()
    read_event(reply)
    took = time.monotonic() - begun
    rest = reply.read()
    assert rest.endswith(b"data: [DONE]\n\n") and not fault.exists(), rest
    line.close()
    return took


def stand(house: House, room: str, count: int) -> None:
    """Until so many processes of a room are ready; a moment longer, so that what died before is off their hands."""

    def ready() -> bool:
        found = [one for one in ask(house.folder, {"do": "status"})["processes"] if room in one["rooms"]]
        return [one["state"] for one in found] == ["ready"] * count

    until(ready, 60)
    time.sleep(1.0)


def measure(house: House, fault: Path, rooms: Sequence[str], times: int, beside: bool) -> dict[str, list[float]]:
    """One case for all rooms in turns, so that a process was there for long when it is killed: the supervisor lets one
    that keeps dying wait ever longer."""
    found: dict[str, list[float]] = {room: [] for room in rooms}
    killed = dict.fromkeys(rooms, 0.0)
    for room in rooms:
        ask(house.folder, {"do": "scale", "group": room, "count": 2 if beside else 1})
    for room in [room for _ in range(times) for room in rooms]:
        stand(house, room, 2 if beside else 1)
        if not beside:
            time.sleep(max(0.0, killed[room] + STEADY_SECONDS + 3.0 - time.monotonic()))
        killed[room] = time.monotonic()
        found[room].append(wait_of(house, fault, room))
        print(f"  {room} {'beside' if beside else 'alone'} {found[room][-1]:.2f} s", flush=True)
    return found


def main() -> int:
    """The table; exit code 1 when a client waited more than 2 s for a short stage, or 20 s for a router."""
    parser = argparse.ArgumentParser(prog="scripts/takeover", description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rooms", default="authorization,rules,persons,router")
    parser.add_argument("--cases", default="beside,alone")
    given = parser.parse_args()
    rooms, cases, rows, bad = given.rooms.split(","), given.cases.split(","), [], False
    if given.times < 1:
        parser.error("--times must be at least 1")
    for words, known in ((rooms, (*SHORT, "router")), (cases, ("beside", "alone"))):
        if unknown := set(words) - set(known):
            parser.error(f"there is no {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="hr") as name, scripted_engine() as engine:
        fault = Path(name) / "fault"
        with headrace(
            Path(name) / "d",
            "--processes",
            "split",
            settings=SETTINGS,
            engines={"mock": engine.url},
            environment={"FAULT_FILE": str(fault)},
        ) as house:
            for case in cases:
                for room, found in measure(house, fault, rooms, given.times, case == "beside").items():
                    rows.append((room, case, statistics.median(found), max(found)))
                    bad = bad or max(found) > (2.0 if room in SHORT else 20.0)
    print(f"{'room':<14} {'case':<8} {'median s':>9} {'worst s':>9}   ({given.times} each)")
    for room, case, median, worst in rows:
        print(f"{room:<14} {case:<8} {median:>9.2f} {worst:>9.2f}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
