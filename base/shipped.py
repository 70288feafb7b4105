"""Files that lie at the top of the checkout and, in the wheel, inside a package: one way to read both."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_TOP = Path(__file__).resolve().parent.parent


def shipped(package: str, name: str) -> str:
    """The text of `name`: inside `package` when installed from the wheel, else at the top of the checkout.

    FileNotFoundError when the installation is broken."""
    inside = resources.files(package) / name
    return inside.read_text() if inside.is_file() else (_TOP / name).read_text()
