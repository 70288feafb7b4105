"""streams.yaml for the command line: check it, apply it to a server, show it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from base.ids import SystemRandom
from base.settings import SettingsError
from console import config
from console.acl import user_of
from console.cli.client import CliError
from console.own import connected
from console.stack import ROOMS, choose_rooms
from runtime import topology
from schemas.errors import HeadraceError


def mistakes(file: Path | None) -> list[str]:
    """Every mistake, one line each; empty when the file is sound."""
    try:
        _load(file)
    except topology.TopologyError as error:
        return str(error).splitlines()
    return []


def rows(file: Path | None) -> list[dict[str, Any]]:
    """Every stream as one row. CliError when the file has mistakes."""
    try:
        found = _load(file)
    except topology.TopologyError as error:
        raise CliError(f"{str(error).splitlines()[0]}; `headrace topology check` shows all") from None
    return [
        {
            "stream": name,
            "key": stream.key,
            "publishers": [f"{who}: {', '.join(kinds)}" for who, kinds in stream.publishers.items()],
            "groups": list(stream.groups),
            "retention": stream.retention,
            "description": stream.description,
        }
        for name, stream in found.streams.items()
    ]


def users(processes: Sequence[str], *, strict: bool = False) -> list[dict[str, str]]:
    """A Redis user with a new password for each process, named by its rooms; by default one for each room.
    LayoutError."""
    chosen = [choose_rooms(process.split(",")) for process in processes] or [(room,) for room in ROOMS]
    chance, declared = SystemRandom(), topology.load()
    found = []
    for rooms in chosen:
        user, password = user_of(rooms, declared, strict=strict), chance.bytes(24).hex()
        line = user.line(password)
        found.append({"rooms": ",".join(rooms), "user": user.name, "password": password, "line": line})
    return found


def apply_to_server(file: Path | None) -> list[str]:
    """Make the server of the settings have what the topology declares; what was done. CliError."""
    try:
        settings = config.load(file)
    except SettingsError as error:
        raise CliError("; ".join(map(str, error.issues))) from None
    try:
        return asyncio.run(_apply(settings))
    except HeadraceError as error:
        raise CliError(f"{error}; check redis.url") from None


async def _apply(settings: config.Settings) -> list[str]:
    async with connected(settings) as client:
        allowed = settings.redis.allow_no_aof
        return await topology.make_ready(topology.load(), settings.partitions, client, allow_no_aof=allowed)


def _load(file: Path | None) -> topology.Topology:
    if file is None:
        return topology.load()
    try:
        return topology.load(file.read_text(), str(file))
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}") from None
