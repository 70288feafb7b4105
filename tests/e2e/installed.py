"""An installed Headrace as an operator uses it: the wheel in an environment outside the checkout, a folder with `.env`.

No variable of this shell reaches it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from console.embedded.processes import die_with_parent
from tests.e2e.house import until


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed Headrace. bin: its programs; home: the folder it is used from."""

    bin: Path
    home: Path

    def run(self, *words: str, code: int | None = 0, more: Mapping[str, str] | None = None) -> str:
        """What `headrace WORDS` printed; it must end with `code`, if one is named."""
        done = subprocess.run(
            [str(self.bin / "headrace"), *words],
            cwd=self.home,
            env=bare(self.home, more or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, text: str) -> str:
        """What a program printed that its interpreter ran."""
        words = [str(self.bin / "python"), "-c", text]
        done = subprocess.run(words, cwd=self.home, env=bare(self.home, {}), capture_output=True, text=True, check=True)
        return done.stdout.strip()


def bare(home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """An environment that knows nothing of this one."""
    return {"PATH": os.defpath, "HOME": str(home), **variables}


@contextmanager
def up(installed: Installed, port: int, *words: str) -> Iterator[None]:
    """`headrace up`, ready when the block begins."""
    ready = installed.home / ".headrace" / "connection.json"
    with serving(installed, "up", "--port", str(port), *words, ready=ready.exists):
        yield


@contextmanager
def serving(
    installed: Installed, *words: str, ready: Callable[[], bool], code: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that serves, until the block ends; it must then stop as asked, or have ended by itself with `code`."""
    number = len(list(installed.home.glob("served-*.log")))
    path = installed.home / f"served-{number}.log"
    with open(path, "wb") as log:
        process = subprocess.Popen(
            [str(installed.bin / "headrace"), *words],
            cwd=installed.home,
            env=bare(installed.home, {}),
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
        )
        try:
            until(lambda: ready() or process.poll() is not None, 60)
            assert process.poll() is None, path.read_text()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait(60)
        assert ended == code, path.read_text()
