"""Processes come and go while answers stream: scaled, started beside, drained, killed. No request may fail by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.house import ROOT, Engine, House, another_process, command, headrace, scripted_engine, until
from tests.e2e.test_kills import Seen, ask, quiet

TOKENS = 40
SETTINGS = "runs: {drain_s: 0.3}"  # shorter than an answer: a drain must take the time of a door instead


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine("--ttft-ms", "5", "--itl-ms", "20") as engine:
        yield engine


@pytest.fixture(scope="module")
def house(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with headrace(tmp_path_factory.mktemp("scale"), settings=SETTINGS, engines={"mock": engine.url}) as house:
        yield house


class Traffic:
    """Clients that ask one request after the other; what each of them saw."""

    def __init__(self, house: House, clients: int) -> None:
        self.seen: list[Seen] = []
        self._house, self._over = house, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._over.is_set():
            self.seen.append(ask(self._house, "go on", tokens=TOKENS))

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.seen) >= len(self._threads))
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)

    def more(self, count: int = 8) -> None:
        """Wait until so many further answers have come."""
        wanted = len(self.seen) + count
        until(lambda: len(self.seen) >= wanted, 60)

    def failed(self) -> list[Seen]:
        """Answers that are not whole."""
        return [seen for seen in self.seen if not seen.done or seen.code or seen.cut or seen.tokens != TOKENS]


@contextmanager
def traffic(house: House, clients: int = 4) -> Iterator[Traffic]:
    """Streams that go on during the block; none of them may have failed."""
    with Traffic(house, clients) as going:
        yield going
    assert going.failed() == []
    quiet(house)


def status(house: House) -> dict[str, Any]:
    """What `headrace status` says to programs."""
    found: dict[str, Any] = json.loads(command(house, "status", "--json").stdout)
    return found


def serving(house: House, room: str) -> list[dict[str, Any]]:
    return [row for row in house.connection["processes"] if room in row["rooms"] and row["state"] == "ready"]


def test_a_group_is_scaled_up_and_down_under_load(house: House) -> None:
    with traffic(house) as going:
        up = command(house, "scale", "rules", "3")
        assert (up.returncode, up.stdout) == (0, "rules: 3 ready\n"), up.stderr
        assert len(serving(house, "rules")) == 3
        going.more()
        groups = {row["group"]: row["consumers"] for row in status(house)["groups"]}
        assert (groups["rules"], groups["persons"]) == (3, 1)
        down = command(house, "scale", "rules", "1")
        assert (down.returncode, down.stdout) == (0, "rules: 1 ready\n"), down.stderr
        going.more()
    assert [row["rooms"][0] for row in serving(house, "rules")] == ["authorization"]
    assert "rules-2" not in house.connection["pids"]


def test_a_router_that_joined_is_drained_in_the_middle_of_its_streams(house: House) -> None:
    with traffic(house) as going, another_process(house, ["router"]) as joined:
        until(lambda: _holds(house, joined.consumer))
        gone = command(house, "drain", joined.consumer)
        assert gone.returncode == 0 and "gone" in gone.stdout, gone.stderr
        assert joined.process.wait(30) == 0
        going.more()
    rows = json.loads(command(house, "lag", "--consumers", "--json").stdout)["data"]
    assert joined.consumer not in {row["consumer"] for row in rows}


def _holds(house: House, consumer: str) -> bool:
    """Whether this router owns a run now."""
    _, found = house.request("/admin/v1/consumers")
    return any(row["pending"] for row in found["data"] if row["consumer"] == consumer and row["group"] == "router")


def test_a_killed_worker_of_several_costs_no_request(house: House) -> None:
    assert command(house, "scale", "rules", "2").returncode == 0
    with traffic(house) as going:
        extra = next(row for row in serving(house, "rules") if row["rooms"] == ["rules"])
        os.kill(extra["pid"], signal.SIGKILL)
        until(lambda: len([row for row in serving(house, "rules") if row["pid"] != extra["pid"]]) == 2)
        going.more()
    assert command(house, "scale", "rules", "1").returncode == 0


def test_the_last_process_of_a_room_is_not_drained_without_force(house: House) -> None:
    workers = next(row["consumer"] for row in house.connection["processes"] if "router" in row["rooms"])
    refused = command(house, "drain", workers)
    assert refused.returncode == 2 and "--force" in refused.stderr and "router" in refused.stderr
    assert command(house, "drain", "rules-1-nobody").returncode == 2
    assert ask(house, "still there").done


def test_scaling_what_does_not_scale_says_what_to_do(house: House) -> None:
    for group, said in (("ingress", "headrace start ingress"), ("nonsense", "groups: authorization")):
        refused = command(house, "scale", group, "2")
        assert refused.returncode == 2 and said in refused.stderr


def test_lag_is_watched_by_a_program_line_by_line(house: House) -> None:
    words = [
        sys.executable,
        "-m",
        "console.cli.main",
        "lag",
        "--watch",
        "--interval",
        "0.2",
        "--data",
        str(house.folder),
    ]
    watching = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    try:
        lines = [watching.stdout.readline() for _ in range(25)]
    finally:
        watching.kill()
        watching.wait(30)
        watching.stdout.close()
    assert sum("CONSUMERS" in line and "DLQ" in line for line in lines) >= 2
    assert any("requests" in line and "rules" in line for line in lines)


def test_status_tells_programs_by_its_exit_code(house: House) -> None:
    assert command(house, "status").returncode == 0
    with another_process(house, ["persons"], "--workers", "2") as joined:
        until(lambda: joined.log.read_text().count("Ready: ") == 2)
        found = status(house)
        assert joined.consumer in {row["consumer"] for row in found["processes"]}
        assert next(row["consumers"] for row in found["groups"] if row["group"] == "persons") == 3
        assert found["healthy"] and found["deployments"] == {"ready": 1, "wanted": 1}


def test_a_room_that_nobody_serves_is_unhealthy_until_it_is_scaled_again(house: House) -> None:
    with another_process(house, ["console", "router", "audit", "provisioner", "authorization", "persons"]) as joined:
        workers = next(row["consumer"] for row in house.connection["processes"] if "rules" in row["rooms"])
        assert command(house, "drain", workers, "--force").returncode == 0
        address = _console_of(joined.log.read_text())
        environment = {**os.environ, "HEADRACE_ADMIN_URL": address, "HEADRACE_ADMIN_KEY": house.connection["admin_key"]}

        def unserved() -> bool:
            """A worker that an earlier test killed is known until it was silent for long enough."""
            seen = subprocess.run(
                [sys.executable, "-m", "console.cli.main", "status"],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
            )
            return seen.returncode == 1 and "the group rules has no consumer" in seen.stdout

        until(unserved, 30, pause=0.5)
        assert "nobody here serves authorization, rules" in (house.folder / "up.log").read_text()
        back = command(house, "scale", "rules", "1")
        assert back.returncode == 0, back.stderr
    until(lambda: command(house, "status").stdout.endswith("\nhealthy\n"))
    assert ask(house, "all there again").done


def _console_of(log: str) -> str:
    """Where the console of a joined process listens."""
    return log.partition("console at ")[2].partition(";")[0]
