"""Several processes under one parent: real forks, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.embedded import processes

PROGRAM = Path(__file__).with_name("replicas_program.py")
PATIENCE = 60.0


class Parent:
    """The parent, and which of its processes say that they live."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        root = PROGRAM.parents[2]
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), *arguments],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.DEVNULL,
            preexec_fn=processes.die_with_parent,
        )

    def living(self) -> dict[int, int]:
        """Number -> pid."""
        found = [path.name.split(".") for path in self._folder.iterdir()]
        return {int(number): int(pid) for number, pid in found if processes.identify(int(pid))}

    def until(self, count: int, without: int = 0) -> dict[int, int]:
        """So many live at one moment, none of them with this pid."""
        seen: dict[int, int] = {}

        def there() -> bool:
            nonlocal seen
            seen = self.living()
            return len(seen) == count and without not in seen.values()

        assert processes.wait_until(there, PATIENCE), seen
        return seen


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    made = Parent(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.terminate()
    made.process.wait(PATIENCE)


def test_all_stop_in_order_when_the_parent_is_told_to(parent: Parent, tmp_path: Path) -> None:
    parent.until(3)
    parent.process.send_signal(signal.SIGINT)
    assert parent.process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_killed_one_comes_back_and_a_drained_one_does_not(parent: Parent) -> None:
    pids = parent.until(3)
    os.kill(pids[1], signal.SIGKILL)
    after = parent.until(3, without=pids[1])
    assert {number for number in after if after[number] != pids[number]} == {1}
    os.kill(pids[2], signal.SIGTERM)
    assert set(parent.until(2)) == {0, 1}
    assert parent.process.poll() is None


def test_the_parent_ends_with_its_last_process(parent: Parent) -> None:
    for pid in parent.until(3).values():
        os.kill(pid, signal.SIGTERM)
    assert parent.process.wait(PATIENCE) == 0


def test_one_that_cannot_start_ends_all_with_code_2(tmp_path: Path) -> None:
    broken = Parent(tmp_path, "--broken")
    assert broken.process.wait(PATIENCE) == 2
    assert broken.living() == {}


def test_a_child_that_is_told_to_go_before_it_has_begun_goes_and_every_end_is_told_apart() -> None:
    root = PROGRAM.parents[2]
    words = [sys.executable, str(PROGRAM.with_name("forks_program.py"))]
    done = subprocess.run(words, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE)
    assert done.stdout == b"0 0\n"
