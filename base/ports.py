"""Ports of this machine: finding a free one, and naming the process that holds a taken one (proc(5))."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from base.ids import SystemRandom

_LISTEN = "0A"  # state LISTEN in /proc/net/tcp
_DRAWN_FROM = 8000  # so many ports are drawn from
_TRIES = 20
_CHANCE = SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago. It lies below those that outgoing connections are given (ip(7),
    ip_local_port_range), so none takes it before the server listens there."""
    first = _first_outgoing()
    for _ in range(_TRIES):
        port = int(_CHANCE.uniform(max(1024, first - _DRAWN_FROM), max(1024, first)))
        if is_free(port, host):
            return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _first_outgoing() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32768


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def next_free(port: int, host: str = "127.0.0.1") -> int:
    """The first free port above `port` within a hundred, else any free one."""
    return next((near for near in range(port + 1, min(port + 100, 65536)) if is_free(near, host)), free_port(host))


def holder(port: int) -> str:
    """Who listens on `port`: "pid 12 (name)", or why that cannot be told."""
    inodes = _listening_inodes(port)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if inodes & _sockets_of(pid):
            return f"pid {pid} ({_name_of(pid)})"
    return "a process of another user" if inodes else "another process"


def _listening_inodes(port: int) -> set[str]:
    """Socket inodes that listen on the port, IPv4 and IPv6."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, rows):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _sockets_of(pid: str) -> set[str]:
    """Inodes of the sockets a process holds; empty when we may not look."""
    found = set()
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        return found
    return found


def _name_of(pid: str) -> str:
    """The command line of a process, shortened; its bare name when it has none."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line[:80] or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "unknown"
