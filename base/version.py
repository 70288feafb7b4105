"""Which version this is. It is written in pyproject.toml and nowhere else."""

from __future__ import annotations

from functools import cache
from importlib import metadata

#: The name under which the package is installed.
PACKAGE = "headrace"


@cache
def version() -> str:
    """The installed version; `0+unknown` where the code lies about without having been installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "0+unknown"
