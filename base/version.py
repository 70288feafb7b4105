"""Which Headrace this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed version; `0+checkout` when nothing is installed."""
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "0+checkout"
