"""Logs: one JSON object a line on files and pipes, readable lines on a terminal. Never a prompt, never a secret.

    log = logs.room("router")
    log.info("run claimed", run=run, tenant=tenant, epoch=2)

Fields with a telling name (password, token, body, messages ...) are replaced unless they are numbers, and texts that
look like credentials are replaced wherever they stand, tracebacks included. Standard logging is underneath, so
libraries' own lines come out in the same form. A disabled level costs one comparison.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, Any, Literal

ROOT = "headrace"
HIDDEN = "[hidden]"
_LONGEST = 2_000  # characters of one text field
_NAMES = re.compile(
    r"secret|token|passw|authorization|api_?key|credential|cookie|dsn|keyring|pepper"
    r"|^(prompt|prompts|messages?|content|text|body|input|output|answer|payload|completion)$",
    re.IGNORECASE,
)
_VALUES = re.compile(
    r"\bhr_[A-Za-z0-9]+_[A-Za-z0-9_-]+"
    r"|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{8,}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them
_COLOURS = {"debug": "2", "info": "36", "warning": "33", "error": "31", "critical": "31;1"}

Form = Literal["auto", "json", "text"]


class Log:
    """The log of one room, with fields that every line of it carries."""

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: dict[str, object]) -> None:
        self._logger, self._fields = logger, fields

    def bind(self, **fields: object) -> Log:
        """The same log with more fields on every line."""
        return Log(self._logger, {**self._fields, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def _write(self, level: int, event: str, fields: dict[str, object], exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=exc_info, extra={"fields": {**self._fields, **fields}})


def room(name: str, **fields: object) -> Log:
    """The log of a room; `fields` stand on every line."""
    return Log(logging.getLogger(f"{ROOT}.{name}"), dict(fields))


def setup(level: str = "info", *, stream: IO[str] | None = None, form: Form = "auto", process: str = "") -> None:
    """Send everything to `stream` (stderr by default). Call once per process; a second call replaces the first.

    form: json, text, or auto = text when the stream is a terminal. process: a name on each line, for shared files."""
    target = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(_TextLines(process, colours=target.isatty()) if as_text else _JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak only when something is wrong
    logging.getLogger(ROOT).setLevel(level.upper())


def redact(value: Any, name: str = "") -> Any:
    """`value` without secrets and prompts, as plain JSON values. `name`: the field it stands in."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if name and _NAMES.search(name):
        return HIDDEN
    if isinstance(value, dict):
        return {str(key): redact(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(inner) for inner in value]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return _VALUES.sub(_hide, text[:_LONGEST])


def _hide(match: re.Match[str]) -> str:
    """Keep the public part of one of our keys: its id finds the key, and is no secret."""
    parts = match[0].split("_")
    return f"hr_{parts[1]}_{HIDDEN}" if parts[0] == "hr" else HIDDEN


class _Lines(logging.Formatter):
    """What both forms share: one record as ordered plain fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        given: dict[str, object] = getattr(record, "fields", {})
        found: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "room": record.name.removeprefix(f"{ROOT}."),
            "event": redact(record.getMessage()),
        }
        if self._process:
            found["process"] = self._process
        found.update((name, redact(value, name)) for name, value in given.items())
        if record.exc_info:
            found["error"] = redact(self.formatException(record.exc_info)[-_LONGEST:])
        return found


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record), ensure_ascii=False, separators=(",", ":"))


class _TextLines(_Lines):
    def __init__(self, process: str, *, colours: bool) -> None:
        super().__init__(process)
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        found = self.fields(record)
        time, level, room, event = (found.pop(name) for name in ("ts", "level", "room", "event"))
        trace = found.pop("error", "") if record.exc_info else ""
        mark = f"\033[{_COLOURS.get(level, '0')}m{level:<7}\033[0m" if self._colours else f"{level:<7}"
        rest = "".join(f" {name}={value}" for name, value in found.items())
        line = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", f"{room}: {event}{rest}")
        return f"{time[11:23]} {mark} {line}" + (f"\n{trace}" if trace else "")
