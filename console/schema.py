"""The schema of the settings' database, for `headrace migrate`."""

from __future__ import annotations

from console.config import Settings
from schemas.errors import HeadraceError
from storage.migrate import PRE, migrate
from storage.migrate import status as look


class NoRecord(HeadraceError):
    """No database is named."""


async def rows(settings: Settings) -> list[dict[str, str]]:
    """Every migration: name, phase, state (applied | pending). Changes nothing. NoRecord, Unavailable."""
    return [
        {"name": item.name, "phase": item.phase, "state": "applied" if applied else "pending"}
        for item, applied in await look(_dsn(settings))
    ]


async def bring_up(settings: Settings, *, post: bool) -> list[str]:
    """Apply what is pending; names. post: also what must wait for the last old process; an empty database has none."""
    known = await look(_dsn(settings))
    empty = not any(applied for _, applied in known)
    return await migrate(_dsn(settings), phase=None if post or empty else PRE)


def _dsn(settings: Settings) -> str:
    if not settings.postgres.dsn:
        raise NoRecord("DATABASE_URL (postgres.dsn) is not set; `headrace up` migrates its own database by itself")
    return settings.postgres.dsn
