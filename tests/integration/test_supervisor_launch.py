"""`up` around rooms of our own: real processes, real servers; the rooms answer signals and note their deeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from base import ports
from base.ids import SystemRandom
from console.control_socket import NAME, ControlError, ask
from console.embedded import processes
from console.launch import LaunchError, check_port, only_one, read_secrets

PROGRAM = Path(__file__).with_name("supervisor_program.py")
PATIENCE = 60.0


class Run:
    """One `up` in a process of its own."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.output = data.with_suffix(f".{len(list(data.parent.glob('*.out')))}.out")
        with self.output.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(data), *arguments],
                stdout=sink,
                stderr=sink,
                cwd=PROGRAM.parents[2],
                env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
                start_new_session=True,
            )

    def until_ready(self) -> Mapping[str, Any]:
        """The content of connection.json once it is there."""
        self.until(lambda: (self.data / "connection.json").exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output.read_text()
        return self.connection()

    def connection(self) -> Mapping[str, Any]:
        """connection.json as it is now."""
        found: Mapping[str, Any] = json.loads((self.data / "connection.json").read_text())
        return found

    def until(self, done: Callable[[], bool]) -> None:
        assert processes.wait_until(done, PATIENCE), self.output.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts `up` on one data folder, as often as asked; everything it left is ended."""
    runs: list[Run] = []

    def go(*arguments: str) -> Run:
        runs.append(Run(tmp_path / "data", *arguments))
        return runs[-1]

    yield go
    if any(run.process.poll() is None for run in runs) or (tmp_path / "data/connection.json").exists():
        for run in runs:
            if run.process.poll() is None:
                run.end()
        last = go()  # adopts what a killed run left behind, then ends it
        last.until_ready()
        last.end()


def alive(pids: Mapping[str, int]) -> set[str]:
    """Names of the processes that still run."""
    return {name for name, pid in pids.items() if processes.identify(pid) is not None}


def test_up_announces_itself_and_ctrl_c_stops_every_process(start: Callable[..., Run]) -> None:
    run = start()
    connection = run.until_ready()
    pids = connection["pids"]
    assert alive(pids) == set(pids) >= {"supervisor", "valkey", "postgres", "ingress", "router", "console"}
    assert connection["api_key"] == "hr_test_key"
    assert (run.data / "connection.json").stat().st_mode & 0o777 == 0o600
    assert (run.data / NAME).exists()  # who reads that all is ready may ask for more
    assert run.end(signal.SIGINT) == 0
    assert alive(pids) == set()
    assert not (run.data / "connection.json").exists()
    assert "hr_test_key" in run.output.read_text()


def test_ingress_drains_before_the_workers_end(start: Callable[..., Run]) -> None:
    run = start()
    run.until_ready()
    run.end()
    deeds = (run.data / "deeds").read_text().split()
    assert deeds.index("ingress:stopped") < deeds.index("workers:stopping")


def test_second_ctrl_c_does_not_wait_for_a_room_that_never_ends(start: Callable[..., Run]) -> None:
    run = start("--stubborn")
    pids = run.until_ready()["pids"]
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: "Stopping" in run.output.read_text())
    assert run.end(signal.SIGINT) == 0
    assert alive(pids) == set()


def test_ctrl_c_during_the_start_stops_what_was_started(start: Callable[..., Run]) -> None:
    run = start("--slow")
    run.until(lambda: "preparing" in run.output.read_text())
    pids = {name: json.loads((run.data / name / "server.json").read_text())["pid"] for name in ("valkey", "postgres")}
    assert run.end(signal.SIGINT) == 130
    assert alive(pids) == set()


def test_killed_room_comes_back_and_connection_json_names_its_new_process(start: Callable[..., Run]) -> None:
    run = start("--split")
    before = run.until_ready()["pids"]
    os.kill(before["router"], signal.SIGKILL)
    run.until(lambda: run.connection()["pids"].get("router", before["router"]) != before["router"])
    after = run.connection()["pids"]
    assert {name for name in after if after[name] != before[name]} == {"router"}
    told = [deed for deed in (run.data / "deeds").read_text().split() if "heir_of" in deed]
    assert told == [f"router:heir_of=router-{before['router']}-abc"]  # whose entries it need not wait for


def test_killed_valkey_comes_back_on_the_same_port(start: Callable[..., Run]) -> None:
    run = start()
    before = run.until_ready()["pids"]["valkey"]
    record = run.data / "valkey/server.json"
    port = json.loads(record.read_text())["port"]
    os.kill(before, signal.SIGKILL)
    run.until(lambda: run.connection()["pids"]["valkey"] != before)
    assert json.loads(record.read_text())["port"] == port


def test_killed_supervisor_leaves_servers_that_the_next_up_adopts(start: Callable[..., Run]) -> None:
    first = start()
    before = first.until_ready()["pids"]
    first.end(signal.SIGKILL)
    second = start()
    second.until(lambda: "Ready:" in second.output.read_text() or second.process.poll() is not None)
    after = second.connection()["pids"]
    assert "taken over" in second.output.read_text()
    assert (after["valkey"], after["postgres"]) == (before["valkey"], before["postgres"])
    assert alive({name: before[name] for name in ("ingress", "router")}) == set()


def test_second_up_keeps_data_and_does_not_print_the_key_again(start: Callable[..., Run]) -> None:
    first = start()
    first.until_ready()
    first.end()
    second = start()
    assert second.until_ready()["api_key"] == "hr_test_key"
    second.end()
    assert "hr_test_key" not in second.output.read_text()


def test_room_that_cannot_start_ends_up_with_one_line_and_code_2(start: Callable[..., Run]) -> None:
    run = start("--broken")
    assert run.process.wait(PATIENCE) == 2
    assert "did not become ready" in run.output.read_text().splitlines()[-1]


def test_failing_bootstrap_is_told_in_its_own_words(start: Callable[..., Run]) -> None:
    run = start("--refuse")
    assert run.process.wait(PATIENCE) == 2
    assert run.output.read_text().splitlines()[-1] == "the database is from the future"


def test_a_taken_port_is_an_error_that_names_the_process_and_another_port(start: Callable[..., Run]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            LaunchError, match=rf"port {port} is taken by pid {os.getpid()} .*--port {ports.next_free(port)}"
        ):
            check_port(port)


def scaled(run: Run, room: str, count: int) -> list[Mapping[str, Any]]:
    """Ask for so many processes and wait until connection.json shows them; those that serve the room."""
    ask(run.data, {"do": "scale", "group": room, "count": count})

    def found() -> list[Mapping[str, Any]]:
        rows = [row for row in run.connection()["processes"] if room in row["rooms"]]
        return rows if len(rows) == count and all(row["state"] == "ready" for row in rows) else []

    run.until(lambda: bool(found()))
    return found()


def test_a_room_is_scaled_up_beside_the_merged_process_and_down_again(start: Callable[..., Run]) -> None:
    run = start()
    before = run.until_ready()
    up = scaled(run, "rules", 3)
    assert [row["rooms"] for row in up[1:]] == [["rules"], ["rules"]]
    assert run.connection()["pids"] == before["pids"]  # of several processes the first
    assert "rules:metrics.port=0" in (run.data / "deeds").read_text()
    assert [row["pid"] for row in scaled(run, "rules", 1)] == [before["pids"]["rules"]]
    assert alive({row["consumer"]: row["pid"] for row in up}) == {up[0]["consumer"]}
    assert (run.data / "deeds").read_text().split().count("rules:stopped") == 2
    assert "unexpectedly" not in run.output.read_text()
    assert run.end(signal.SIGINT) == 0


def test_a_killed_extra_process_comes_back_in_the_number_that_was_asked_for(start: Callable[..., Run]) -> None:
    run = start()
    run.until_ready()
    extra = scaled(run, "audit", 2)[1]["pid"]
    os.kill(extra, signal.SIGKILL)
    run.until(lambda: extra not in {row["pid"] for row in run.connection()["processes"]})
    assert len(scaled(run, "audit", 2)) == 2


def test_a_room_that_went_in_order_stays_away_until_it_is_scaled_again(start: Callable[..., Run]) -> None:
    run = start("--split")
    pids = run.until_ready()["pids"]
    os.kill(pids["router"], signal.SIGTERM)
    run.until(lambda: "router" not in run.connection()["pids"])
    assert "router was drained and is not started again; nobody here serves router now" in run.output.read_text()
    assert len(scaled(run, "router", 1)) == 1
    assert run.connection()["pids"]["router"] != pids["router"]


def test_what_is_brought_back_is_the_process_of_the_layout_not_one_that_scaling_made(start: Callable[..., Run]) -> None:
    run = start()
    pids = run.until_ready()["pids"]
    scaled(run, "rules", 2)
    scaled(run, "rules", 1)
    os.kill(pids["router"], signal.SIGTERM)
    run.until(lambda: "router" not in run.connection()["pids"])
    assert "router" in scaled(run, "rules", 1)[0]["rooms"]


def test_impossible_numbers_are_refused_and_change_nothing(start: Callable[..., Run]) -> None:
    run = start()
    before = run.until_ready()
    for wish in ({"group": "ingress", "count": 2}, {"group": "rules", "count": 0}, {"group": "nonsense", "count": 2}):
        with pytest.raises(ControlError):
            ask(run.data, {"do": "scale", **wish})
    with pytest.raises(ControlError, match="unknown request 'dance'"):
        ask(run.data, {"do": "dance"})
    assert run.connection() == before


def test_a_layout_may_name_a_worker_room_twice(start: Callable[..., Run]) -> None:
    run = start("--twice")
    rows = run.until_ready()["processes"]
    assert [row["rooms"] for row in rows if "rules" in row["rooms"]].count(["rules"]) == 2
    assert (run.data / "logs/rules-2.log").exists()


def test_two_runs_on_one_folder_are_refused(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(LaunchError, match=f"pid {os.getpid()}"), only_one(tmp_path):
        pass


def test_secrets_are_made_once_and_refused_when_others_may_read_them(tmp_path: Path) -> None:
    made = read_secrets(tmp_path, SystemRandom())
    assert read_secrets(tmp_path, SystemRandom()) == made
    (tmp_path / "secrets.json").chmod(0o644)
    with pytest.raises(LaunchError, match="chmod 600"):
        read_secrets(tmp_path, SystemRandom())
