"""How a single process finds the system it joins: the servers of the settings, else those of a running `headrace up`.

What `up` runs with is in its data folder: secrets.json, the servers' records, and connection.json with the settings
file it read, so that a process beside it judges by the same policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from base import ports
from base.ids import SystemRandom
from console import own
from console.config import Settings, load
from console.embedded.errors import EmbeddedError
from console.launch import embedded_servers, read_object, read_secrets


class JoinError(Exception):
    """Why there is nothing to join and what to do, in one line."""


def join(rooms: Sequence[str], data: Path | None, config: Path | None, port: int | None) -> Settings:
    """The settings of a process of these rooms. port: of the door; None takes the settings' if it is free, else any
    free one. JoinError, SettingsError, LaunchError."""
    file = config
    overrides: dict[str, Any] = {"data.directory": data}
    settings = load(file, overrides=overrides)
    if not _own_servers(settings):
        folder = settings.data.directory.absolute()
        file, overrides = config or _file_of(folder), _embedded(folder)
        settings = load(file, overrides=overrides)
    if "ingress" in rooms:
        overrides["server.port"] = port if port is not None else _door_port(settings)
    return load(file, overrides=overrides)


def with_any_health_port(settings: Settings) -> Settings:
    """For a further process of the same rooms on one machine: a fixed port is taken by the first."""
    return settings.model_copy(update={"metrics": settings.metrics.model_copy(update={"port": 0})})


def _own_servers(settings: Settings) -> bool:
    """See own.are_named: JoinError for halves, and for a key ring that is missing."""
    try:
        return own.are_named(settings)
    except own.OwnServerError as error:
        raise JoinError("; ".join(str(error).splitlines())) from None


def _embedded(folder: Path) -> dict[str, Any]:
    """The servers and secrets of the system that runs on a data folder. JoinError when none does."""
    if not (folder / "secrets.json").exists():
        raise _nothing_runs(folder)
    secrets = read_secrets(folder, SystemRandom())
    valkey, postgres = embedded_servers(folder, secrets)
    try:
        valkey.attach()
        postgres.attach()
    except EmbeddedError:
        raise _nothing_runs(folder) from None
    return {
        "redis.url": valkey.fastest_url,
        "postgres.dsn": postgres.dsn,
        "secrets.keyring": secrets.keyring,
        "data.directory": folder,
        "metrics.port": 0,  # a fixed one belongs to the processes of `up`
        "admin.port": 0,
    }


def _nothing_runs(folder: Path) -> JoinError:
    return JoinError(
        f"nothing to join: no Headrace runs on {folder}; start one with `headrace up`, name its folder with "
        "--data DIR, or name servers with redis.url, postgres.dsn and secrets.keyring"
    )


def _file_of(folder: Path) -> Path | None:
    """The settings file that the running `up` read; None without one. JoinError when that cannot be known."""
    path = folder / "connection.json"
    found = read_object(path)
    file = found.get("config", "") if found or not path.exists() else None
    if not isinstance(file, str) or "\0" in file:
        raise JoinError(f"{path} is damaged: start `headrace up` again, or name the settings file with --config FILE")
    return Path(file) if file else None


def _door_port(settings: Settings) -> int:
    """The settings' port when it is free, else 0, which takes any free one."""
    server = settings.server
    return server.port if ports.is_free(server.port, server.host) else 0
