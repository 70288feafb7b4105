"""Makes the environment `.venv` from the pinned lists in requirements/, with the standard library alone.

- Everything is pinned with hashes; uv itself is fetched by pip into `.tools/` and does the rest.
- Says what it will fetch before it fetches; one line per step; one line with the remedy when it fails.
- Quick and silent about fetching when the lists have not changed (a stamp in `.venv` names their hash).
- Two runs at once wait for each other.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
STAMP = VENV / "headrace-install.json"
LOG = TOOLS / "install.log"
BASE_SETS = ("core", "weights", "allocator", "build")
DEV_SETS = ("dev",)
#: A line speed that makes the announced time honest for a home connection, megabytes per second.
LINE_SPEED = 10.0
NETWORK_WORDS = (
    "error sending request",
    "dns error",
    "failed to lookup",
    "connection refused",
    "connection error",
    "network is unreachable",
    "timed out",
    "name resolution",
    "max retries exceeded",
    "failed to establish a new connection",
    "failed to connect",
    "could not connect",
    "no matching distribution found",
)


class InstallError(Exception):
    """What went wrong and what to do, in one line."""


def say(text: str) -> None:
    """One line of progress, shown at once."""
    print(text, flush=True)


def lists(sets: Sequence[str]) -> list[Path]:
    """The pinned lists of the named sets."""
    return [ROOT / "requirements" / f"{name}.txt" for name in sets]


def fingerprint(sets: Sequence[str]) -> str:
    """Hash of everything that decides what the environment holds."""
    digest = hashlib.sha256()
    for path in [*lists(("uv", *sets)), ROOT / "pyproject.toml", Path(__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def wanted_sets(dev: bool) -> list[str]:
    """The sets to install: what is asked for, and what an earlier run installed (nobody loses their tools)."""
    known: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(STAMP.read_text())["sets"]
    return [*BASE_SETS, *(DEV_SETS if dev or "dev" in known else ())]


def up_to_date(sets: Sequence[str]) -> bool:
    """Whether the stamp says that exactly these lists are installed, and the interpreter is still there."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    if stamp != {"sets": list(sets), "hash": fingerprint(sets)}:
        return False
    return all((VENV / "bin" / program).exists() for program in ("python", "headrace"))


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Holds the lock of this checkout; a second run says that it waits."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another install is under way in this folder; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def announce(sets: Sequence[str], uv_missing: bool) -> None:
    """How much will be fetched and about how long that takes, before the first byte."""
    sizes = json.loads((ROOT / "requirements/sizes.json").read_text())
    total = sum(sizes[name] for name in [*sets, *(("uv",) if uv_missing else ())])
    seconds = 10 + total / LINE_SPEED
    say(f"Installing into {VENV}")
    say(f"  fetches up to {total:.0f} MB (less what is cached), about {seconds:.0f} s at {LINE_SPEED:.0f} MB/s")


def run(command: Sequence[str], environment: dict[str, str], doing: str) -> None:
    """Run one step with its output in the log; InstallError in one line when it fails."""
    started = time.monotonic()
    with LOG.open("ab") as log:
        begin = log.tell()
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        wait_with_ticks(process, doing, started)
    if process.returncode:
        raise explain(doing, LOG.read_bytes()[begin:].decode(errors="replace"))


def wait_with_ticks(process: subprocess.Popen[bytes], doing: str, started: float) -> None:
    """Wait for the step; on a terminal the seconds are shown as they pass."""
    on_terminal = sys.stdout.isatty()
    while True:
        try:
            process.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            if on_terminal:
                print(f"\r  {doing} ... {time.monotonic() - started:.0f} s ", end="", flush=True)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise InstallError("stopped; run it again to go on") from None
    print("\r" if on_terminal else "", end="")
    say(f"  {doing}: {'done' if process.returncode == 0 else 'failed'} ({time.monotonic() - started:.1f} s)")


def explain(doing: str, output: str) -> InstallError:
    """The one line for a failed step: the network if it was that, else the last words of the tool."""
    low = output.lower()
    if any(word in low for word in NETWORK_WORDS):
        return InstallError(
            "the package registry cannot be reached: check the network (HTTPS_PROXY for a proxy, UV_DEFAULT_INDEX and "
            f"PIP_INDEX_URL for a mirror), then run this again. Details: {LOG}"
        )
    if "invalid peer certificate" in low or "certificate_verify_failed" in low:
        return InstallError(
            "the registry's certificate is not trusted here: apt-get install ca-certificates, or set SSL_CERT_FILE "
            f"(and PIP_CERT) to your CA file, then run this again. Details: {LOG}"
        )
    if "no space left" in low:
        return InstallError(f"the disk is full (about 1 GB is needed): free some space and run this again. See {LOG}")
    last = [line.strip() for line in output.splitlines() if line.strip()][-1:]
    return InstallError(f"{doing} failed: {''.join(last)[:300]} (details: {LOG})")


def pip_command() -> tuple[list[str], dict[str, str]]:
    """How to run pip without installing it: the interpreter's own, or the wheel that ensurepip carries."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    if importlib.util.find_spec("pip") is None:
        environment["PYTHONPATH"] = str(bundled_pip())
    return [sys.executable, "-m", "pip"], environment


def bundled_pip() -> Path:
    """The pip wheel that comes with the interpreter. InstallError names the Debian package when there is none."""
    spec = importlib.util.find_spec("ensurepip")
    folders = [Path("/usr/share/python-wheels")]
    if spec is not None and spec.origin is not None:
        folders.insert(0, Path(spec.origin).parent / "_bundled")
    found = [wheel for folder in folders for wheel in folder.glob("pip-*.whl")]
    if not found:
        raise InstallError(
            f"{sys.executable} has neither pip nor ensurepip: apt-get install python3-venv (or python3-pip), "
            "then run this again"
        )
    return found[0]


def uv_home() -> Path:
    """The private folder of the pinned uv; its name carries the version, so a new pin is a new folder."""
    pin = (ROOT / "requirements/uv.txt").read_text().split()[0]
    return TOOLS / pin.replace("==", "-")


def fetch_uv() -> Path:
    """The pinned uv's program, fetched and checked by pip when it is not there yet."""
    home = uv_home()
    program = home / "bin/uv"
    if not program.exists():
        shutil.rmtree(home, ignore_errors=True)
        command, environment = pip_command()
        half = TOOLS / "uv.part"
        shutil.rmtree(half, ignore_errors=True)
        command += ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        run([*command, "--target", str(half), "-r", str(ROOT / "requirements/uv.txt")], environment, "the installer uv")
        half.rename(home)
    return program


def uv_environment() -> dict[str, str]:
    """uv speaks to the registry with the machine's certificates where there are any; pip's mirror is used too."""
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV), "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if "SSL_CERT_FILE" not in environment and Path("/etc/ssl/certs/ca-certificates.crt").exists():
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    return environment


def make_venv() -> None:
    """An environment without pip, by the standard library; one whose interpreter is gone is made anew."""
    if (VENV / "pyvenv.cfg").exists() and (VENV / "bin/python").exists():
        return
    if importlib.util.find_spec("venv") is None:
        raise InstallError(f"{sys.executable} has no module venv: apt-get install python3-venv, then run this again")
    options = ["--without-pip", "--clear"]
    run([sys.executable, "-m", "venv", *options, str(VENV)], dict(os.environ), "a fresh environment")


def install(sets: Sequence[str]) -> None:
    """All steps. The stamp goes first and comes back last: a broken run is repaired by the next."""
    LOG.unlink(missing_ok=True)
    announce(sets, uv_missing=not (uv_home() / "bin/uv").exists())
    make_venv()
    STAMP.unlink(missing_ok=True)
    uv = str(fetch_uv())
    python = ["--python", str(VENV / "bin/python")]
    sources = [str(path) for path in lists(sets)]
    run([uv, "pip", "sync", *python, "--require-hashes", *sources], uv_environment(), "packages")
    editable = ["--no-deps", "--no-build-isolation", "--offline", "--editable", str(ROOT)]
    run([uv, "pip", "install", *python, *editable], uv_environment(), "the command headrace")
    STAMP.write_text(json.dumps({"sets": list(sets), "hash": fingerprint(sets)}))
    say(f"Installed: {VENV}/bin/headrace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Install what is asked; 0 when the environment is right, 2 with one line when it is not."""
    parser = argparse.ArgumentParser(description="Makes .venv from the pinned lists.")
    parser.add_argument("--dev", action="store_true", help="also the tools of scripts/test and scripts/check")
    parser.add_argument("--quiet", action="store_true", help="say nothing when there is nothing to do")
    options = parser.parse_args(arguments)
    try:
        with only_one():
            sets = wanted_sets(options.dev)
            if not up_to_date(sets):
                install(sets)
            elif not options.quiet:
                say("Up to date.")
    except InstallError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
