"""CPU and memory of groups of processes, read from /proc.

A group is a name and its root process ids. Every live process belongs to its nearest root among its ancestors, so a
supervisor's figure doesn't contain the rooms it started. CPU time of children that have ended and were waited for
counts for their parent (PostgreSQL's backends come and go). Linux only.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Groups = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the process table; ticks are user + system, its own and its ended children's."""

    parent: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (10**6) of one group: resident, and proportional (shared pages divided among their users)."""

    rss: float
    pss: float
    processes: int


def table() -> dict[int, Row]:
    """All processes that can be seen now."""
    rows = {}
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            try:
                rows[int(entry)] = parse_stat((_PROC / entry / "stat").read_text())
            except OSError:
                continue
    return rows


def parse_stat(line: str) -> Row:
    """One /proc/<pid>/stat line; the command in brackets may contain anything."""
    fields = line[line.rindex(")") + 2 :].split()
    return Row(parent=int(fields[1]), ticks=sum(int(value) for value in fields[11:15]))


def members(groups: Groups, rows: Mapping[int, Row]) -> dict[str, list[int]]:
    """The live processes of each group; a process is in the group of its nearest root."""
    owner = {pid: name for name, roots in groups.items() for pid in roots}
    found: dict[str, list[int]] = {name: [] for name in groups}
    for pid in rows:
        name = _nearest(pid, owner, rows)
        if name:
            found[name].append(pid)
    return found


def _nearest(pid: int, owner: Mapping[int, str], rows: Mapping[int, Row]) -> str:
    for _ in range(64):
        if pid in owner:
            return owner[pid]
        if pid not in rows:
            return ""
        pid = rows[pid].parent
    return ""


def cpu_seconds(groups: Groups) -> dict[str, float]:
    """CPU seconds used by each group so far; the difference of two readings is what counts."""
    rows = table()
    return {name: sum(rows[pid].ticks for pid in pids) / _TICKS_PER_S for name, pids in members(groups, rows).items()}


def memory(groups: Groups) -> dict[str, Memory]:
    """Memory of each group now; processes that end meanwhile, or may not be read, count nothing."""
    return {name: _memory_of(pids) for name, pids in members(groups, table()).items()}


def _memory_of(pids: Sequence[int]) -> Memory:
    rss = pss = seen = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss:", "Pss:"))}
        rss, pss, seen = rss + kilobytes.get("Rss", 0), pss + kilobytes.get("Pss", 0), seen + 1
    return Memory(rss * 1024 / 1e6, pss * 1024 / 1e6, seen)


def listening(port: int) -> tuple[int, ...]:
    """The processes that listen on a TCP port of this machine and may be looked into; none where it is elsewhere."""
    sockets = {
        f"socket:[{inode}]" for name in ("tcp", "tcp6") for inode in _listening_inodes(_PROC / "net" / name, port)
    }
    if not sockets:
        return ()
    return tuple(sorted(pid for pid in table() if sockets & _open_files(pid)))


def _listening_inodes(path: Path, port: int) -> list[str]:
    """State 0A is listening; the second column is address:port in hexadecimal, the tenth the inode."""
    rows = [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for entry in os.scandir(_PROC / str(pid) / "fd"):
            with suppress(OSError):
                found.add(os.readlink(entry.path))
    except OSError:
        pass
    return found


def machine_busy_seconds() -> float:
    """CPU seconds used by everything on this machine since it started."""
    values = [int(value) for value in (_PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(values) - values[3] - values[4]) / _TICKS_PER_S


def merge_shared(pids: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Groups from names and process ids; names that share a process become one group, joined by a plus sign."""
    names: dict[tuple[int, ...], list[str]] = {}
    for name, given in pids.items():
        names.setdefault((given,) if isinstance(given, int) else tuple(given), []).append(name)
    return {"+".join(sharing): roots for roots, sharing in names.items()}
