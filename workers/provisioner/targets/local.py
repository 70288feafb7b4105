"""Engines as processes of this machine.

An engine outlives the provisioner: it runs in a session of its own, and its environment says whose it is
(HEADRACE_ENGINE_*). Nothing else is written down, so whatever moment a provisioner dies at, the next one finds every
engine by looking through /proc: adopted when it is still wanted, ended when not. Looking through all of /proc costs
milliseconds that the other rooms of the process feel, so it is done at first and then once a minute; in between only
the engines known are looked at. A process is known by pid and the kernel's start time, so a reused pid is never
signalled. A file lock keeps two provisioners of one data directory from starting the same engine twice. Linux only.

In the command `{port}` becomes a free port, `{name}` the model's name, `{replica}` the number of the replica. The
engine must serve OpenAI's API on that port under /v1. Its output is kept in DIR/engines (logs.py). Our own settings
(HEADRACE*) are not handed down.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from base import ports
from base.clock import Clock
from base.pids import alive, born, exit_status
from workers.provisioner.ports import Exit, Handle, Health, Spec, StartFailed
from workers.provisioner.targets import logs
from workers.provisioner.targets.models import Fetch, probe

_MARK = "HEADRACE_ENGINE_"
_POLL_S = 0.05
_SCAN_S = 60.0  # seconds between two searches for engines that this provisioner did not start
Key = tuple[str, int]  # deployment, replica
_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP)  # ignored by us or not: default for engines


class LocalTarget:
    """Implements ports.Target for processes. directory: DIR/engines, where logs lie; it also names the owner."""

    def __init__(
        self,
        directory: Path,
        fetch: Fetch,
        clock: Clock,
        *,
        stop_grace_s: float = 10.0,
        log_bytes: int = logs.PIECE_BYTES,
    ) -> None:
        self._directory = directory.absolute()
        self._fetch, self._clock, self._grace, self._log_bytes = fetch, clock, stop_grace_s, log_bytes
        self._watched: dict[int, int] = {}  # pid -> pidfd
        self._known: dict[Key, Handle] = {}  # what the last search and the starts since then gave
        self._exits: dict[Key, Exit] = {}  # how those ended that run no more
        self._search_at = 0.0  # monotonic
        self.on_exit: Callable[[], None] = lambda: None  # called when an engine ends by itself

    async def running(self) -> Sequence[Handle]:
        if not self._directory.exists():
            return ()  # made before the first start: nothing of ours can run
        if self._clock.monotonic() >= self._search_at:
            found = {_key(handle): handle for handle in await asyncio.to_thread(self._find)}
            self._search_at = self._clock.monotonic() + _SCAN_S
        else:
            found = {key: handle for key, handle in self._known.items() if alive(handle.pid, handle.born)}
        for key in self._known.keys() - found.keys():
            self._exits[key] = Exit(exit_status(self._known[key].pid))
        self._known = found
        for handle in found.values():
            self._watch(handle.pid)
        await asyncio.to_thread(self._rotate, tuple(found))
        return tuple(found.values())

    async def start(self, spec: Spec) -> Handle:
        handle = await asyncio.to_thread(self._start, spec)
        self._known[_key(handle)] = handle
        self._exits.pop(_key(handle), None)
        self._watch(handle.pid)
        return handle

    async def probe(self, spec: Spec, handle: Handle) -> Health:
        if not alive(handle.pid, handle.born):
            return Health(up=False, reason="the process has ended")
        return await probe(self._fetch, handle.url, spec, private=True)

    async def stop(self, handle: Handle) -> None:
        """SIGTERM to the session's group, SIGKILL after the grace period."""
        for sign, wait in ((signal.SIGTERM, self._grace), (signal.SIGKILL, 10.0)):
            if not alive(handle.pid, handle.born):
                break
            with suppress(ProcessLookupError):
                os.killpg(handle.pid, sign)
            until = self._clock.monotonic() + wait
            while alive(handle.pid, handle.born) and self._clock.monotonic() < until:
                await self._clock.sleep(_POLL_S)
        if self._known.get(_key(handle)) == handle:
            del self._known[_key(handle)]
            exit_status(handle.pid)
        await asyncio.to_thread(self._kill_leftovers, handle.deployment, handle.replica)

    def ended(self, deployment: str, replica: int) -> Exit | None:
        return self._exits.get((deployment, replica))

    def close(self) -> None:
        """Watch nothing any more; engines run on."""
        for pid in list(self._watched):
            self._unwatch(pid)

    def _watch(self, pid: int) -> None:
        """Hear of its end at once: a pidfd becomes readable then (pidfd_open(2))."""
        if pid in self._watched:
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return  # gone already, or a kernel before 5.3: the next look finds out
        self._watched[pid] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, pid)

    def _ended(self, pid: int) -> None:
        self._unwatch(pid)
        self.on_exit()  # the look that follows reaps it

    def _unwatch(self, pid: int) -> None:
        fd = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)

    def _start(self, spec: Spec) -> Handle:
        program = self._check(spec)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _lock(self._directory / ".lock"):
            for handle in self._find():
                if _key(handle) == (spec.deployment, spec.replica) and handle.digest == spec.digest:
                    return handle
            self._kill_leftovers(spec.deployment, spec.replica)
            return self._spawn(spec, program)

    def _check(self, spec: Spec) -> str:
        """The program to run. StartFailed says what is wrong with the wish."""
        if not spec.command:
            raise StartFailed("target local needs a command, for example: my-engine --port {port}")
        if not logs.NAME.fullmatch(spec.deployment):
            raise StartFailed(
                "a deployment's name is 1-128 characters of A-Z a-z 0-9 . _ - and begins with a letter or digit"
            )
        program = shutil.which(spec.command[0])
        if program is None:
            raise StartFailed(f"{spec.command[0]!r} is not a program on this machine's PATH")
        return program

    def _spawn(self, spec: Spec, program: str) -> Handle:
        port = ports.free_port()
        argv = [_filled(part, port, spec) for part in spec.command]
        marks = {
            f"{_MARK}OWNER": str(self._directory),
            f"{_MARK}DEPLOYMENT": spec.deployment,
            f"{_MARK}REPLICA": str(spec.replica),
            f"{_MARK}DIGEST": spec.digest,
            f"{_MARK}PORT": str(port),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE")}
        log = logs.path_of(self._directory, spec.deployment, spec.replica)
        when = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="seconds")
        logs.begin_life(log, when, self._log_bytes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        try:
            pid = os.posix_spawn(
                program,
                argv,
                {**inherited, **marks},
                file_actions=actions,
                setsid=True,
                setsigdef=_RESET,
                setsigmask=(),
            )
        except OSError as error:
            raise StartFailed(f"{program} cannot be started: {error.strerror}") from None
        _await_marks(pid)
        return _handle((spec.deployment, spec.replica), spec.digest, port, pid, born(pid))

    def _rotate(self, running: Sequence[Key]) -> None:
        """Keep the logs of engines that write much within their bounds."""
        for deployment, replica in running:
            logs.rotate(logs.path_of(self._directory, deployment, replica), self._log_bytes)

    def _kill_leftovers(self, deployment: str, replica: int) -> None:
        """Children of an engine whose first process is gone: they would keep its memory and its GPU."""
        mine = (str(self._directory), deployment, str(replica))
        for name in filter(str.isdecimal, os.listdir("/proc")):
            if _whose(_environment(int(name))) == mine:
                with suppress(ProcessLookupError):
                    os.kill(int(name), signal.SIGKILL)

    def _find(self) -> list[Handle]:
        """Our engines in /proc; of several for one replica the oldest."""
        found: dict[Key, Handle] = {}
        for name in os.listdir("/proc"):
            handle = self._read(int(name)) if name.isdecimal() else None
            if handle is not None and handle.born < found.get(_key(handle), _LAST).born:
                found[_key(handle)] = handle
        return list(found.values())

    def _read(self, pid: int) -> Handle | None:
        """The engine with this pid if it is one of ours: a session leader with our marks that is not a zombie."""
        since = born(pid, leader=True)
        if not since:
            return None
        marks = _environment(pid)
        owner, deployment, replica = _whose(marks)
        digest, port = marks.get(f"{_MARK}DIGEST", ""), marks.get(f"{_MARK}PORT", "")
        if owner != str(self._directory) or not (port.isdecimal() and replica.isdecimal()):
            return None
        return _handle((deployment, int(replica)), digest, int(port), pid, since)


_LAST = Handle(deployment="", digest="", url="", born=1 << 62)


def _key(handle: Handle) -> Key:
    return handle.deployment, handle.replica


def _whose(marks: Mapping[str, str]) -> tuple[str, str, str]:
    """Owner, deployment, replica. Engines of the time before replicas have no number: they are the first."""
    owner, deployment = marks.get(f"{_MARK}OWNER", ""), marks.get(f"{_MARK}DEPLOYMENT", "")
    return owner, deployment, marks.get(f"{_MARK}REPLICA", "1")


def _filled(part: str, port: int, spec: Spec) -> str:
    """One word of the command with its places filled in."""
    return part.replace("{port}", str(port)).replace("{name}", spec.name).replace("{replica}", str(spec.replica))


def _handle(key: Key, digest: str, port: int, pid: int, born: int) -> Handle:
    url = f"http://127.0.0.1:{port}/v1"
    return Handle(deployment=key[0], replica=key[1], digest=digest, url=url, pid=pid, born=born)


def _environment(pid: int) -> Mapping[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return {}  # gone, or somebody else's
    pairs = (item.partition("=") for item in raw.split("\0") if item.startswith(_MARK))
    return {name: value for name, _, value in pairs}


def _await_marks(pid: int) -> None:
    """Until others can see whose engine it is: the kernel shows a new program's environment an instant after exec."""
    while not _environment(pid) and born(pid):
        os.sched_yield()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
