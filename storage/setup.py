"""What must stand in a PostgreSQL server before anything is migrated: the service's login, its role, its database.

An administrator makes them (who need not be a superuser: the rights to create roles and databases are enough); where
they are there already, nobody needs to be one. The login owns the database and nothing else; the service works in the
role, which can bypass nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

import asyncpg

from storage.migrate import linked
from storage.queries import QUERIES

OLDEST = 150_000  # PostgreSQL 15, as server_version_num
_LOCK = 0x6865616472616365  # one at a time, as for migrations
_ADMIN_DATABASE = "postgres"
Link: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """A server as the user of a dsn sees it.

    version: server_version_num. mighty: a superuser, or passes row-level security by. has_role, role_mighty: of the
    role the service works in. member: the login may work as it. makes_tables: in the schema public. standby: it follows
    another server and takes no writes."""

    version: int
    login: str
    mighty: bool
    makes_roles: bool
    has_role: bool
    role_mighty: bool
    member: bool
    makes_tables: bool
    standby: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that must be there. there: before anybody made it."""

    name: str
    there: bool


async def record_facts(dsn: str, role: str) -> RecordFacts:
    """Look as the user of the dsn. Unavailable when nobody answers or lets it in."""
    async with linked(dsn) as connection:
        row = await connection.fetchrow(QUERIES["look_at_server"], role)
    assert row is not None, "whoever is connected has a role"
    return RecordFacts(**dict(row))


def admin_dsn(dsn: str, user: str, password: str) -> str:
    """The administrator's address: the server of `dsn`, the database every server has."""
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{place}"
    return parts._replace(netloc=netloc, path=f"/{_ADMIN_DATABASE}").geturl()


async def prepare(admin: str, dsn: str, role: str, *, only_look: bool) -> list[Step]:
    """Make what is missing for `dsn`, as the administrator. Unavailable, StoreRefused when a right is missing."""
    parts = urlsplit(dsn)
    login, password = unquote(parts.username or ""), unquote(parts.password or "")
    database = unquote(parts.path.removeprefix("/"))
    async with linked(admin) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        look = _Looker(connection, only_look)
        return [
            await look(f"role {login}", (QUERIES["has_login"], login), (QUERIES["make_login"], login, password)),
            await look(f"role {role}", (QUERIES["has_login"], role), (QUERIES["make_role"], role)),
            await look(
                f"{login} may work as {role}",
                (QUERIES["is_member"], login, role),
                (QUERIES["make_member"], role, login),
            ),
            await _database(look, connection, database, login),
        ]


async def _database(look: _Looker, connection: Link, database: str, login: str) -> Step:
    """Whoever gives a database to another role must be a member of it, or a superuser."""
    me = await connection.fetchrow(QUERIES["look_at_server"], login)
    assert me is not None, "whoever is connected has a role"
    there = await connection.fetchval(QUERIES["has_database"], database)
    if not there and not me["member"] and not look.only_look:
        await look.make(QUERIES["make_member"], login, me["login"])
    make = (QUERIES["make_database"], database, login)
    return await look(f"database {database}", (QUERIES["has_database"], database), make)


class _Looker:
    """Looks for one thing after the other, and makes what is not there unless it only looks."""

    def __init__(self, connection: Link, only_look: bool) -> None:
        self._connection, self.only_look = connection, only_look

    async def __call__(self, name: str, is_there: tuple[str, ...], make: tuple[str, ...]) -> Step:
        there = bool(await self._connection.fetchval(*is_there))
        if not there and not self.only_look:
            await self.make(*make)
        return Step(name, there)

    async def make(self, query: str, *names: str) -> None:
        """The server itself writes the statement, so that names and passwords are quoted by its own rules."""
        statement = await self._connection.fetchval(query, *names)
        await self._connection.execute(statement)
